"""The key sheet and the commands, from the bindings and the one registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Writing",
        (
            ("Enter", "send"),
            ("Ctrl+J, Alt+Enter", "new line"),
            ("↑ ↓", "earlier lines, by their beginning"),
            ("/  Tab", "commands and their completion"),
        ),
    ),
    (
        "Correcting",
        (
            ("F2", "correct the last answer"),
            ("F3", "undo the last edit, exactly"),
            ("Shift+F3", "redo it"),
            ("F6", "next pane: edit, log"),
        ),
    ),
    (
        "Conversation (Tab goes there)",
        (
            ("↑ ↓", "choose a message"),
            ("f  c  r", "correct, copy, ask again"),
            ("m", "load earlier messages"),
            ("Ctrl+End", "to the end, follow again"),
        ),
    ),
    (
        "Anywhere",
        (
            ("Esc", "stop the work, close, go back: in this order"),
            ("Ctrl+C", "copy a selection, or stop; twice when idle: quit"),
            ("Ctrl+P", "all commands"),
            ("F1, ?", "this sheet"),
            ("Ctrl+Q", "quit"),
        ),
    ),
)


class HelpScreen(ModalScreen[None]):
    """Everything that can be pressed or typed."""

    BINDINGS: ClassVar = [
        Binding("escape,f1,q,question_mark,enter", "app.pop_screen", "Close"),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, commands: Sequence[tuple[str, str]]) -> None:
        """`commands`: how each is written, and what it does."""
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        with Vertical(id="help"), VerticalScroll(id="help-body"):
            for title, rows in KEYS:
                yield Static(title, classes="help-title", markup=False)
                yield Static(_table(rows))
            yield Static("Commands", classes="help-title", markup=False)
            yield Static(_table(self._commands))
            yield Static(
                "Shift and drag selects text with the terminal's own selection. "
                "llm-edit chat --plain is the same assistant without a full screen.",
                classes="help-foot",
                markup=False,
            )

    def on_mount(self) -> None:
        box = self.query_one("#help")
        box.border_title = "Help"
        box.border_subtitle = "↑↓ scroll · Esc closes"
        self.query_one("#help-body").focus()

    def action_scroll(self, step: int) -> None:
        self.query_one("#help-body").scroll_relative(y=step * 2, animate=False)


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=26, style="bold", no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1)
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return table
