"""Everything that was ever written to a model, searched as one types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from ..texts import clip

SHOWN = 200  # matches in the list; a longer search finds the others


def matches(lines: Sequence[str], words: str) -> list[str]:
    """The lines with every one of the words in them, newest first, each once.

    lines  oldest first. Capitals matter only where the words have some.
    """
    exact = words != words.lower()
    wanted = words.split()
    found = []
    for line in dict.fromkeys(reversed(lines)):
        text = line if exact else line.lower()
        if all(word in text for word in wanted):
            found.append(line)
    return found


class HistorySearch(ModalScreen["str | None"]):
    """Ends with the chosen line, or None."""

    HELP = """Words that the line contains, in any order. ↑ and ↓ choose, Enter takes the line
    into the editor, Esc leaves."""
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss(None)", "Leave"),
        Binding("up", "move(-1)", "Previous", show=False, priority=True),
        Binding("down,ctrl+r", "move(1)", "Next", show=False, priority=True),
        Binding("f1", "app.help", "Help", show=False),
    ]

    def __init__(self, lines: Sequence[str]) -> None:
        """`lines`: oldest first."""
        super().__init__()
        self._lines = lines
        self.found: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="search"):
            yield Input(placeholder="words of what was written", id="search-words")
            found = OptionList(id="search-found", markup=False)
            found.can_focus = False
            yield found

    def on_mount(self) -> None:
        self.query_one("#search").border_title = "Written before, in all sessions"
        self._show("")

    def _show(self, words: str) -> None:
        everything = matches(self._lines, words)
        self.found = everything[:SHOWN]
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options(Option(Text(clip(line, 200))) for line in self.found)
        if self.found:
            listed.highlighted = 0
        total = len(everything)
        said = "nothing found" if not total else f"{total} found"
        box = self.query_one("#search")
        box.border_subtitle = f"{said} · Enter takes it · Esc leaves"

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        self._show(message.value)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        place = self.query_one(OptionList).highlighted
        if place is not None and self.found:
            self.dismiss(self.found[place])

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self.dismiss(self.found[message.option_index])

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        if step > 0:
            listed.action_cursor_down()
        else:
            listed.action_cursor_up()
