"""The researcher's log: what the engine notes, and what libraries wrote to the terminal."""

from __future__ import annotations

from collections import deque

from rich.text import Text
from textual import events
from textual.widgets import RichLog

from ..texts import visible

KEPT = 5000  # lines


class LogPane(RichLog):
    """Lines as they came, never read as markup."""

    can_focus = True

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, max_lines=KEPT, min_width=20, wrap=True, markup=False)
        self.texts: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._columns = 0

    def on_mount(self) -> None:
        self.border_title = "Log"

    def say(self, text: str, style: str = "") -> None:
        """Add lines at the end."""
        for line in visible(text).splitlines() or [""]:
            self.texts.append((line, style))
            self.write(Text(line, style=style))

    def on_resize(self, event: events.Resize) -> None:
        """Wrap the lines anew when the width has changed."""
        if self._columns not in (0, event.size.width):
            self.clear()
            for line, style in self.texts:
                self.write(Text(line, style=style))
        self._columns = event.size.width
