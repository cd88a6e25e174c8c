"""The sessions, or what a search found in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from sessions.ids import short
from sessions.rows import Hit, SessionRow

from ..narrate import count
from ..texts import clip
from .bound import bindings

KINDS = {"question": "asked", "answer": "answered", "fact": "edited"}


class SessionList(OptionList):
    """Two lines for each session or found text. The keys are the screen's to carry out."""

    COMPONENT_CLASSES: ClassVar = {"session-list--aside"}
    HELP = "The sessions, last used first; or what the search found, the best first."
    PLACE = "sessions"
    BINDINGS: ClassVar = bindings("sessions")

    class Acted(Message):
        """A key was pressed on a session."""

        def __init__(self, action: str, session: str, node: str) -> None:
            super().__init__()
            self.action, self.session, self.node = action, session, node

    class Chosen(Message):
        """The cursor is on a session, and on a found text of it (or on none: "")."""

        def __init__(self, session: str, node: str) -> None:
            super().__init__()
            self.session, self.node = session, node

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.titles: dict[str, str] = {}  # of the sessions that are listed
        self._items: list[tuple[str, str]] = []  # session, node
        self._texts: list[tuple[str, str]] = []  # what is shown of each
        self._width = 0

    @property
    def chosen(self) -> tuple[str, str]:
        """Session and node; "" for none."""
        at = self.highlighted
        return self._items[at] if at is not None and at < len(self._items) else ("", "")

    def show_sessions(self, rows: Sequence[SessionRow], current: str, model: str) -> None:
        """All sessions; the cursor stays where it is, or goes to the current one.

        model  of the conversation: only others are named
        """
        wanted = self.chosen[0] or current
        self.titles = {row.id: row.title for row in rows}
        self._items = [(row.id, "") for row in rows]
        self._texts = [_session_lines(row, current, model) for row in rows]
        self._draw(next((i for i, (id, _) in enumerate(self._items) if id == wanted), 0))

    def show_hits(self, hits: Sequence[Hit]) -> None:
        """What a search found, the best first."""
        self.titles = {hit.session: hit.title for hit in hits}
        self._items = [(hit.session, hit.node) for hit in hits]
        self._texts = [_hit_lines(hit) for hit in hits]
        self._draw(0)

    def on_resize(self, event: events.Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            with self.prevent(OptionList.OptionHighlighted):
                self._draw(self.highlighted or 0)

    def _draw(self, cursor: int) -> None:
        self._width = self.scrollable_content_region.width
        room = max(self._width, 10)
        style = self.get_component_rich_style("session-list--aside")
        aside = style.without_color + Style(color=style.color)
        self.clear_options()
        for head, below in self._texts:
            prompt = Text(clip(head, room), no_wrap=True)
            prompt.append(f"\n  {clip(below, room - 2)}", aside)
            self.add_option(Option(prompt))
        if self._items:
            self.highlighted = cursor

    # -- keys --------------------------------------------------------------------------------

    def action_act(self, action: str) -> None:
        session, node = self.chosen
        if session:
            self.post_message(self.Acted(action, session, node))

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self.action_act("look")

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        message.stop()
        session, node = self.chosen
        if session:
            self.post_message(self.Chosen(session, node))


def _session_lines(row: SessionRow, current: str, model: str) -> tuple[str, str]:
    name = row.title or row.short
    edits = count(row.edits, "edit") if row.edits else "no edits"
    parts = [edits, count(row.messages, "message"), row.updated[:10]]
    parts += [row.model.name] if row.model.name != model else []
    return f"● {name}, open" if row.id == current else name, " · ".join(parts)


def _hit_lines(hit: Hit) -> tuple[str, str]:
    return f"{KINDS.get(hit.kind, hit.kind)}: {hit.snippet}", hit.title or short(hit.session)
