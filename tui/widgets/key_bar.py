"""The last line: the keys that matter here. Greyed ones would do nothing now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

from ..keys import BY_ID, keys_of, short

# (id of the action, word); "" stands for a key that cannot be changed
BAR = (
    ("stop", "stop"), ("fix", "fix"), ("undo", "undo"), ("panes", "panes"),
    ("palette", "commands"), ("help", "help"), ("quit", "quit"), ("search", "search"),
)  # fmt: skip
MESSAGE_BAR = (
    ("message.fix", "fix"), ("message.copy", "copy"), ("message.retry", "retry"),
    ("message.explain", "explain"), ("message.more", "more"), ("end", "end"), ("stop", "write"),
)  # fmt: skip


class KeyBar(Widget):
    """Keys with a word each; a click does the same."""

    COMPONENT_CLASSES: ClassVar = {"key-bar--key", "key-bar--label", "key-bar--off"}
    ALLOW_SELECT = False

    def __init__(self, bar: Sequence[tuple[str, str]] = BAR, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._bar = bar
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
        mine: dict[str, str] = getattr(self.app, "my_keys", {})
        for name, label in MESSAGE_BAR if on_message else self._bar:
            action = BY_ID[name].action
            idle = action in off
            key = short(keys_of(BY_ID[name], mine))
            line.append(key, self._style("off" if idle else "key"))
            line.append(f" {label}", self._style("off" if idle else "label"))
            self._places.append((line.cell_len, action))
            line.append("   ")
        return line

    async def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        action = next((a for end, a in self._places if place and place.x < end), "")
        if action and "(" not in action:
            await self.run_action(action if "." in action else f"screen.{action}")

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"key-bar--{part}")
