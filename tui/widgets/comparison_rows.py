"""The prompts of a comparison with their two answers, one chosen; differing words are marked.

Two columns where there is room, else a line of A above a line of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ..compare import CompareRow, CompareView
from ..comparison_text import KINDS, verdict
from ..texts import clip, visible
from ..worddiff import GONE, NEW, Word, word_diff

TWO = 56  # cells from which on two columns are drawn
BAR = " │ "


class ComparisonRows(OptionList):
    """Draws a `CompareView`."""

    COMPONENT_CLASSES: ClassVar = {
        "comparison-rows--head", "comparison-rows--same", "comparison-rows--differs",
        "comparison-rows--gone", "comparison-rows--new", "comparison-rows--bar",
    }  # fmt: skip

    class Moved(Message):
        """The cursor is on another row."""

    class Opened(Message):
        """Enter was pressed on a row."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.view: CompareView | None = None
        self._width = 0

    @property
    def rows(self) -> Sequence[CompareRow]:
        return self.view.rows if self.view else ()

    @property
    def chosen(self) -> CompareRow | None:
        at = self.highlighted
        return self.rows[at] if at is not None and at < len(self.rows) else None

    def show(self, view: CompareView | None) -> None:
        """Draw this; the cursor stays on its row."""
        same = self.view and view and [r.prompt for r in self.rows] == [r.prompt for r in view.rows]
        old, self.view = self.rows, view
        if same and view is not None and self.option_count == len(view.rows):
            for place, (before, now) in enumerate(zip(old, view.rows, strict=True)):
                if before != now:
                    self.replace_option_prompt_at_index(place, self._row(now))
            return
        self._draw(self.highlighted or 0)

    def on_resize(self, event: events.Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            self._draw(self.highlighted or 0)

    def _draw(self, cursor: int) -> None:
        self._width = self.scrollable_content_region.width
        self.clear_options()
        self.add_options(Option(self._row(row)) for row in self.rows)
        if self.rows:
            self.highlighted = min(cursor, len(self.rows) - 1)

    # -- one row -----------------------------------------------------------------------------

    def _row(self, row: CompareRow) -> Text:
        width = max(self._width, 20)
        judged = verdict(row)
        style = self._style("same" if judged.startswith("=") else "differs")
        kind = f"{KINDS[row.prompt.kind]}  "
        prompt = clip(row.prompt.text, width - len(kind) - len(judged) - 2)
        line = Text(no_wrap=True, overflow="crop")
        line.append(kind, self._style("bar")).append(prompt, self._style("head"))
        line.append(" " * max(width - line.cell_len - len(judged), 1)).append(judged, style)
        a, b = self._sides(row)
        if width >= TWO:
            return Text("\n").join([line, *self._columns(a, b, width), Text()])
        return Text("\n").join(
            [line, *self._one("A ", a, width), *self._one("B ", b, width), Text()]
        )

    def _sides(self, row: CompareRow) -> tuple[Text, Text]:
        """The two answers; while one is missing, the other without marks."""
        waiting = Text("…", self._style("bar"))
        if row.a is None or row.b is None:
            return tuple(  # type: ignore[return-value]
                Text(visible(side.answer)) if side else waiting for side in (row.a, row.b)
            )
        a, b = word_diff(visible(row.a.answer), visible(row.b.answer))
        return self._words(a), self._words(b)

    def _words(self, words: Sequence[Word]) -> Text:
        styles = {GONE: self._style("gone"), NEW: self._style("new")}
        parts = [Text(str(word), styles.get(word.mark, "")) for word in words]
        return Text(" ").join(parts) if parts else Text("(nothing)", self._style("bar"))

    def _columns(self, a: Text, b: Text, width: int) -> list[Text]:
        left = (width - len(BAR)) // 2
        sides = [
            list(text.wrap(self.app.console, room))
            for text, room in ((a, left), (b, width - len(BAR) - left))
        ]
        lines = []
        for place in range(max(map(len, sides))):
            one, other = (side[place] if place < len(side) else Text() for side in sides)
            one.pad_right(left - one.cell_len)
            lines.append(Text.assemble(one, (BAR, self._style("bar")), other, no_wrap=True))
        return lines

    def _one(self, name: str, text: Text, width: int) -> list[Text]:
        lines = text.wrap(self.app.console, width - len(name))
        return [
            Text.assemble((name if i == 0 else "  ", self._style("bar")), line, no_wrap=True)
            for i, line in enumerate(lines)
        ]

    def _style(self, part: str) -> Style:
        """Without the background: that of the chosen row must show."""
        style = self.get_component_rich_style(f"comparison-rows--{part}")
        return style.without_color + Style(color=style.color)

    # -- messages ----------------------------------------------------------------------------

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self.post_message(self.Opened())

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        message.stop()
        self.post_message(self.Moved())
