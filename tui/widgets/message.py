"""One message of the transcript: who, what, and what is worth knowing about it.

Text from people and models is never read as markup.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from ..texts import visible

WHO = {"user": "you", "model": "model", "note": ""}
TONES = {"good": "✓", "partly": "◐", "bad": "✗", "info": "·", "muted": "·"}


@dataclass(frozen=True)
class Entry:
    """What one message shows.

    key     stays the same while the message does; a new text then updates it in place
    kind    "user", "model" or "note"
    tone    of a note: "good", "partly", "bad", "info", "muted"
    aside   a short remark at the right of the first line (seconds)
    badge   a line below (edited, stopped)
    turn    index of the turn it belongs to, -1 for none
    body    what is drawn in place of the text (a table)
    """

    key: str
    kind: str
    text: str
    tone: str = "info"
    aside: str = ""
    badge: str = ""
    turn: int = -1
    live: bool = False
    body: RenderableType | None = None


class MessageView(Horizontal):
    """A row: the speaker, the text with its badge below, a remark at the right."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(classes=f"message -{entry.kind}")
        self.entry = entry
        mark = TONES[entry.tone] if entry.kind == "note" else WHO[entry.kind]
        self._who = Static(mark, classes="who", markup=False)
        self._text = Static("", classes="text", markup=False)
        self._aside = Static("", classes="aside", markup=False)

    def compose(self) -> ComposeResult:
        yield self._who
        yield self._text
        yield self._aside

    def on_mount(self) -> None:
        self._draw()

    def show(self, entry: Entry) -> None:
        """Show this instead; does nothing when it is the same."""
        if entry != self.entry:
            self.entry = entry
            self._draw()

    def _draw(self) -> None:
        entry = self.entry
        self.set_class(entry.live, "-live")
        for tone in TONES:
            self.set_class(entry.kind == "note" and entry.tone == tone, f"-{tone}")
        self.set_class(bool(entry.badge), "-badged")
        self._text.update(entry.body if entry.body is not None else shown_text(entry))
        self._aside.update(entry.aside)
        self._aside.display = bool(entry.aside)


def shown_text(entry: Entry) -> Text:
    """The text, a cursor while it is being written, and the badge below it."""
    text = Text(visible(entry.text))
    if entry.live:
        text.append("▌" if entry.text else "…", "bold")
    if entry.badge:
        text.append(f"\n{entry.badge}", "italic dim")
    return text
