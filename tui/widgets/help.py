"""What helps here, the key sheet and the commands, from the bindings and the one registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from ..keys import CHAT, WITHIN, sheet

Here = tuple[str, str]  # what helps, and the place whose keys come first ("" for none)


def help_for(focused: Widget | None, screen: Screen[object]) -> Here:
    """The help of the focused widget, or of the nearest thing around it that has one.

    `HELP` is a text, `PLACE` a place of tui/keys.py.
    """
    for node in focused.ancestors_with_self if focused else [screen]:
        text = getattr(node, "HELP", None)
        if text:
            return " ".join(text.split()), getattr(node, "PLACE", "")
    return "", ""


class HelpScreen(ModalScreen[None]):
    """Everything that can be pressed or typed."""

    BINDINGS: ClassVar = [
        Binding("escape,f1,q,question_mark,enter", "app.pop_screen", "Close"),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(
        self,
        commands: Sequence[tuple[str, str]],
        here: Here = ("", ""),
        keys: Mapping[str, str] | None = None,
        places: Sequence[str] = CHAT,
    ) -> None:
        """`commands`: how each is written, and what it does. `keys`: those a person chose."""
        super().__init__()
        self._commands = commands
        self._here = here
        self._keys = keys or {}
        self._places = places

    def compose(self) -> ComposeResult:
        with Vertical(id="help"), VerticalScroll(id="help-body"):
            text, place = self._here
            if text:
                yield Static("Here", classes="help-title", markup=False)
                yield Static(text, markup=False, id="help-here")
            around = (place, WITHIN.get(place, ""))
            order = sorted(self._places, key=lambda name: (name != place, name not in around))
            for title, rows in sheet(self._keys, order):
                yield Static(title, classes="help-title", markup=False)
                yield Static(_table(rows))
            if self._commands:
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
