"""The last line: the keys that matter here. Greyed ones would do nothing now."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

KEYS = (
    ("Esc", "stop", "stop"),
    ("F2", "fix", "app.fix"),
    ("F3", "undo", "app.undo"),
    ("F6", "panes", "next_pane"),
    ("^P", "commands", "app.command_palette"),
    ("F1", "help", "app.help"),
    ("^Q", "quit", "app.quit"),
)
MESSAGE_KEYS = (
    ("↑↓", "choose", ""),
    ("f", "fix", ""),
    ("c", "copy", ""),
    ("r", "retry", ""),
    ("m", "more", ""),
    ("^End", "end", "jump_end"),
    ("Esc", "write", "stop"),
)


class KeyBar(Widget):
    """Keys with a word each; a click does the same."""

    COMPONENT_CLASSES: ClassVar = {"key-bar--key", "key-bar--label", "key-bar--off"}
    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[bool, frozenset[str]] = (False, frozenset())
        self._places: list[tuple[int, str]] = []  # where each entry ends, and its action

    def show(self, on_message: bool, off: frozenset[str]) -> None:
        """The keys of a chosen message, or the usual ones; `off` names idle actions."""
        if (on_message, off) != self._shown:
            self._shown = (on_message, off)
            self.refresh()

    def render(self) -> Text:
        on_message, off = self._shown
        line = Text(no_wrap=True, overflow="crop")
        self._places = []
        for key, label, action in MESSAGE_KEYS if on_message else KEYS:
            idle = action in off
            line.append(key, self._style("off" if idle else "key"))
            line.append(f" {label}", self._style("off" if idle else "label"))
            self._places.append((line.cell_len, action))
            line.append("   ")
        return line

    async def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        action = next((a for end, a in self._places if place and place.x < end), "")
        if action:
            await self.run_action(action if "." in action else f"screen.{action}")

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"key-bar--{part}")
