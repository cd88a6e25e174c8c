"""One message of the transcript: who, what, and what is worth knowing about it.

Text from people and models is never read as markup.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style as RichStyle
from rich.text import Text
from textual.content import Content
from textual.css.styles import RulesMap
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual, visualize
from textual.widget import Widget

from ..texts import visible

WHO = {"user": "you", "model": "model"}
WHO_WIDTH = 7
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


class MessageView(Widget):
    """A row: the speaker, the text with its badge below, a remark at the right.

    One widget, not one for each part: the time in which a conversation is opened goes by the number
    of widgets. The colours of the parts are component styles of the transcript.
    """

    def __init__(self, entry: Entry) -> None:
        super().__init__(classes=f"message -{entry.kind}")
        self.entry = entry
        self._tone()

    def show(self, entry: Entry) -> None:
        """Show this instead; does nothing when it is the same."""
        if entry != self.entry:
            self.entry = entry
            self._tone()
            self.refresh(layout=True)

    def _tone(self) -> None:
        for tone in TONES:
            self.set_class(self.entry.kind == "note" and self.entry.tone == tone, f"-{tone}")

    def render(self) -> Row:
        return Row(self, visualize(self, self._content(), markup=False))

    def _content(self) -> RenderableType:
        return self.entry.body if self.entry.body is not None else shown_text(self.entry)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected of the text; who said it is no part of that."""
        text = self.render().text
        return (selection.extract(text.plain), "\n") if isinstance(text, Content) else None

    def part_style(self, part: str) -> Style:
        """The style of "aside", or of the speaker: a kind of entry, a tone of a note."""
        assert isinstance(self.parent, Widget)
        return self.parent.get_visual_style(f"message--{part}", partial=True)


class Row(Visual):
    """The parts of a message, side by side."""

    def __init__(self, view: MessageView, text: Visual) -> None:
        self.text = text
        self._view = view
        self._aside = f" {view.entry.aside}" if view.entry.aside else ""

    def _room(self, width: int) -> int:
        """Columns that the text has."""
        return max(1, width - WHO_WIDTH - cell_len(self._aside))

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return max(1, self.text.get_height(rules, self._room(width)))

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        room = self._room(width)
        lines = self.text.render_strips(room, height, style, options) or [Strip([])]
        around = style.background_style
        blank = around.rich_style
        first = self._who(around), Strip([Segment(self._aside, self._part(around, "aside"))])
        other = Strip.blank(WHO_WIDTH, blank), Strip.blank(cell_len(self._aside), blank)
        rows = []
        for number, line in enumerate(lines):
            who, aside = other if number else first
            rows.append(Strip.join([who, line.adjust_cell_length(room, style.rich_style), aside]))
        return rows

    def _who(self, around: Style) -> Strip:
        entry = self._view.entry
        if entry.kind == "note":
            mark, part = f"{TONES[entry.tone]:>{WHO_WIDTH - 2}}  ", entry.tone
        else:
            mark, part = f"{WHO[entry.kind]:<{WHO_WIDTH}}", entry.kind
        return Strip([Segment(mark, self._part(around, part))])

    def _part(self, around: Style, part: str) -> RichStyle:
        return (around + self._view.part_style(part)).rich_style


def shown_text(entry: Entry) -> Text:
    """The text, a cursor while it is being written, and the badge below it."""
    text = Text(visible(entry.text))
    if entry.live:
        text.append("▌" if entry.text else "…", "bold")
    if entry.badge:
        text.append(f"\n{entry.badge}", "italic dim")
    return text
