"""The screen of a batch of corrections: one row for each fact, progress, cancel."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable

from ..batch import MARKS, Batch, Row
from ..texts import clip, visible
from ..widgets.line import Line
from ..widgets.progress_line import ProgressLine


class BatchScreen(ModalScreen[None]):
    """Esc stops the batch, then closes; hidden, it goes on behind the conversation."""

    HELP = """Every fact is a correction of its own, or all are one where the method edits many at
    once: /edits lists them, /drop N and undo take them back. Esc stops what is left, h goes back
    to the conversation while the work goes on."""
    BINDINGS: ClassVar = [
        Binding("escape", "stop", "Stop"),
        Binding("h", "app.pop_screen", "Hide"),
        Binding("f1", "app.help", "Help", show=False),
    ]

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.facts = batch  # not `batch`: a screen has a method of that name
        self._drawn: list[tuple[str, ...]] = []
        self._followed = -1  # the last row that was seen at work: the cursor went there

    def compose(self) -> ComposeResult:
        with Vertical(id="batch"):
            yield DataTable(id="batch-rows", cursor_type="row", zebra_stripes=False)
            yield Line(id="batch-said")
            yield ProgressLine(id="batch-progress")

    def on_mount(self) -> None:
        box = self.query_one("#batch")
        box.border_title = Text(f"Correct {len(self.facts.rows)} facts · {self.facts.name}")
        table = self.query_one(DataTable)
        for name, width in (("#", 5), ("state", 11), ("s", 6), ("fact", None)):
            table.add_column(name, width=width, key=name)
        for number, row in enumerate(self.facts.rows, start=1):
            self._drawn.append(cells(number, row))
            table.add_row(*map(Text, self._drawn[-1]), key=str(number))
        table.focus()
        self.draw()

    def draw(self) -> None:
        """What has changed since the last time; nothing while the table is not there yet."""
        if not self._drawn:
            return
        table = self.query_one(DataTable)
        for number, row in enumerate(self.facts.rows, start=1):
            fresh = cells(number, row)
            if fresh != self._drawn[number - 1]:
                self._drawn[number - 1] = fresh
                for name, cell in zip(("#", "state", "s", "fact"), fresh, strict=True):
                    table.update_cell(str(number), name, Text(cell))
        states = [row.state for row in self.facts.rows]
        running = max((i for i, state in enumerate(states) if state == "running"), default=-1)
        if running not in (-1, self._followed):
            self._followed = running
            table.move_cursor(row=running)
        self.query_one(ProgressLine).show(self.facts.share(), self.facts.progress())
        over = self.facts.finished
        hint = "Esc closes" if over else "Esc stops · h hides, the work goes on"
        self.query_one("#batch").border_subtitle = hint
        self._say(table.cursor_row)

    def on_data_table_row_highlighted(self, message: DataTable.RowHighlighted) -> None:
        self._say(message.cursor_row)

    def _say(self, place: int) -> None:
        """What came of the chosen row, in words; at the end, of all."""
        row = self.facts.rows[min(max(place, 0), len(self.facts.rows) - 1)]
        said = visible(row.said) or {"waiting": "Waits.", "running": "Is being edited."}.get(
            row.state, ""
        )
        self.query_one("#batch-said", Line).show(
            f"{said}\n{self.facts.summary()}" if self.facts.finished else said
        )

    def action_stop(self) -> None:
        if self.facts.finished:
            self.app.pop_screen()
        else:
            self.facts.stop()
            self.draw()


def cells(number: int, row: Row) -> tuple[str, ...]:
    """A row of the table."""
    seconds = f"{row.seconds:.1f}" if row.seconds else ""
    return str(number), f"{MARKS[row.state]} {row.state}", seconds, clip(row.change, 200)
