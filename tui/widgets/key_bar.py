"""The last line: the keys that matter here. Greyed ones would do nothing now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

from ..keys import BY_ID, Key, keys_of, short

Bar = Sequence[tuple[str, str]]  # (ids of actions, separated by blanks, word), the first first

BAR: Bar = (
    ("stop", "stop"), ("fix", "fix"), ("undo", "undo"), ("history", "history"),
    ("compare", "compare"), ("help", "help"), ("quit", "quit"), ("panes", "panes"),
    ("palette", "commands"), ("search", "search"),
)  # fmt: skip
MESSAGE_BAR: Bar = (
    ("message.fix", "fix"), ("message.copy", "copy"), ("message.retry", "retry"),
    ("message.explain", "explain"), ("message.more", "more"), ("end", "end"), ("stop", "write"),
)  # fmt: skip
WIDE, CLOSE = 3, 2  # blanks between two


class KeyBar(Widget):
    """Keys with a word each; a click does the same. What does not fit at the end is left out."""

    COMPONENT_CLASSES: ClassVar = {"key-bar--key", "key-bar--label", "key-bar--off"}
    ALLOW_SELECT = False

    def __init__(self, bar: Bar = BAR, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._bar = bar
        self._shown: tuple[Bar, frozenset[str]] = (bar, frozenset())
        self._places: list[tuple[int, str]] = []  # where each entry ends, and its action

    def show(self, on_message: bool, off: frozenset[str]) -> None:
        """The keys of a chosen message, or the usual ones; `off` names idle actions."""
        self.show_bar(MESSAGE_BAR if on_message else self._bar, off)

    def show_bar(self, bar: Bar, off: frozenset[str] = frozenset()) -> None:
        """These keys."""
        if (bar, off) != self._shown:
            self._shown = (bar, off)
            self.refresh()

    def render(self) -> Text:
        bar, off = self._shown
        named = [([BY_ID[id] for id in ids.split()], word) for ids, word in bar]
        entries = [(self._entry(keys, word, off), keys[0]) for keys, word in named]
        whole = sum(entry.cell_len + WIDE for entry, _ in entries) - WIDE
        gap = WIDE if whole <= self.size.width else CLOSE
        line = Text(no_wrap=True, overflow="crop")
        self._places = []
        for entry, key in entries:
            blanks = gap if line else 0
            if line.cell_len + blanks + entry.cell_len > self.size.width:
                break
            line.append(" " * blanks).append_text(entry)
            self._places.append((line.cell_len, key.action))
        return line

    def _entry(self, keys: list[Key], word: str, off: frozenset[str]) -> Text:
        mine: dict[str, str] = getattr(self.app, "my_keys", {})
        idle = keys[0].action in off
        shown = " ".join(short(keys_of(key, mine)) for key in keys)
        return Text.assemble(
            (shown, self._style("off" if idle else "key")),
            (f" {word}", self._style("off" if idle else "label")),
        )

    async def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        action = next((a for end, a in self._places if place and place.x < end), "")
        if not action:
            return
        focused = self.screen.focused
        around = [*focused.ancestors_with_self] if focused else [self.screen]
        name = f"action_{action.partition('(')[0]}"
        owner = next((node for node in around if hasattr(node, name)), self.screen)
        await self.app.run_action(action, owner)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"key-bar--{part}")
