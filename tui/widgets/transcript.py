"""The conversation: finished messages are plain text, only the reply in progress changes.

Only the last messages are mounted; older ones come on demand. The view follows new text until
the reader scrolls up, and again once the reader is back at the end. What the program says and
does not fit (a long table) is shown from its beginning, until there is something newer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from ..keys import BY_ID, keys_of, short
from ..texts import clip
from ..views import EditView, TurnView
from .bound import bindings
from .message import TONES, Entry, MessageView

WINDOW = 20  # messages mounted at first
MORE = 10  # and by each "load more"
WELCOME = """\
Ask the model something, for example:

    What is the capital of Australia?

When an answer is wrong, press {0[fix]}, write the right one, and the model learns it in a few \
seconds. What that changed, and what it did not, is measured and shown. {0[undo]} takes it back, \
exactly.

    /  commands      {0[help]}  all keys      {0[quit]}  quit"""


@dataclass
class Pending:
    """A question whose answer is not finished: queued, or being written.

    place  index of the turn that is asked again; None for a new question
    """

    job: str
    question: str
    answer: str = ""
    started: bool = False
    place: int | None = None


@dataclass(frozen=True)
class Note:
    """Something the program said, after `after` turns."""

    after: int
    text: str
    tone: str
    body: RenderableType | None


class Transcript(VerticalScroll):
    """Messages, with one selected while the transcript has the focus."""

    HELP = "The conversation. The chosen message is marked; these keys act on it."
    PLACE = "conversation"
    BINDINGS: ClassVar = bindings("conversation")
    COMPONENT_CLASSES: ClassVar = {  # parts of its messages
        f"message--{part}" for part in ("user", "model", "aside", *TONES)
    }

    class Acted(Message):
        """A key was pressed on a message. `turn` is None for one that belongs to no turn."""

        def __init__(self, action: str, turn: TurnView | None, text: str) -> None:
            super().__init__()
            self.action, self.turn, self.text = action, turn, text

    def __init__(self, welcome: str = WELCOME, *, id: str | None = None) -> None:
        """`welcome`: shown while there is nothing else; "{0[ID]}" in it is the key of an action."""
        super().__init__(id=id)
        self._welcome = welcome
        self.turns: tuple[TurnView, ...] = ()
        self.edits: dict[int, EditView] = {}
        self.pending: list[Pending] = []
        self.notes: list[Note] = []
        self.follow = True
        self.cursor = -1  # index into the mounted messages
        self._window = WINDOW
        self._fresh = ""  # the key of the first note that was not on the screen yet
        self._held = False  # at the beginning of such a note, not where the reader scrolled
        self._views: dict[str, MessageView] = {}

    def compose(self) -> ComposeResult:
        yield Static("", id="load-more", markup=False)
        mine: dict[str, str] = getattr(self.app, "my_keys", {})
        names = {name: short(keys_of(key, mine)) for name, key in BY_ID.items()}
        yield Static(self._welcome.format(names), id="welcome", markup=False)

    def on_mount(self) -> None:
        self.border_title = "Chat"
        self.query_one("#load-more").display = False

    # -- what is shown -----------------------------------------------------------------------

    def sync(self, turns: Sequence[TurnView], edits: Sequence[EditView] = ()) -> None:
        """Show these turns; messages that did not change stay as they are."""
        self.turns = tuple(turns)
        self.edits = {edit.number: edit for edit in edits}
        self._refresh_entries()

    def stand(
        self,
        turns: Sequence[TurnView],
        edits: Sequence[EditView],
        pending: Sequence[Pending],
        notes: Sequence[Note],
    ) -> None:
        """Show exactly this: replay goes back as well as forth."""
        self.pending, self.notes = list(pending), list(notes)
        self.sync(turns, edits)

    def begin(self, job: str, question: str) -> None:
        """A question that waits for its answer."""
        self.pending.append(Pending(job, question))
        self._follow()
        self._refresh_entries()

    def asking_again(self, job: str, place: int) -> None:
        """The question of a turn is asked again; later turns leave the way to the tip.

        Does nothing for a job that is known already (a new question, or one asked again).
        """
        if not any(each.job == job for each in self.pending) and 0 <= place < len(self.turns):
            self.pending.append(Pending(job, self.turns[place].question, place=place))
            self._refresh_entries()

    def stream(self, job: str, text: str) -> None:
        """More of the reply to the question that `job` answers."""
        for each in self.pending:
            if each.job == job:
                each.started = True
                each.answer += text
                self._refresh_entries()

    def finish(self, job: str) -> None:
        """The reply has ended; the turns have it now, or it was never begun."""
        self.pending = [each for each in self.pending if each.job != job]

    def note(self, text: str, tone: str = "info", body: RenderableType | None = None) -> None:
        """Say something below what was said so far."""
        after = len(self.turns) + len(self.pending)
        self.notes.append(Note(after, text, tone, body))
        if self._held:
            self._follow()
        if self.follow:
            self._fresh = self._fresh or f"n{len(self.notes) - 1}"
        self._refresh_entries()

    def cut_notes(self, turns: int) -> None:
        """Forget what was said behind the first `turns` turns: the conversation is another."""
        self.notes = [note for note in self.notes if note.after <= turns] if turns else []
        self._refresh_entries()

    def entries(self) -> list[Entry]:
        """Everything there is to show, mounted or not, oldest first."""
        return [*self._newest_first()][::-1]

    def _newest_first(self) -> Iterator[Entry]:
        """The entries backwards: of a long conversation only the end is looked at."""
        turns = self._kept()
        total = len(turns) + len(self.pending)
        yield from reversed(self._notes(total, later=True))
        for place in range(total - 1, -1, -1):
            if place >= len(turns):
                said = _waiting(place, self.pending[place - len(turns)])
            else:
                said = self._turn(place, turns[place])
            yield from reversed(said)
            yield from reversed(self._notes(place))

    def _kept(self) -> tuple[TurnView, ...]:
        """The turns, without those that are asked again or lie behind them."""
        places = [each.place for each in self.pending if each.place is not None]
        return self.turns[: places[0]] if places else self.turns

    def _count(self) -> int:
        """How many entries there are."""
        turns = sum(1 + _answered(turn) for turn in self._kept())
        return turns + sum(1 + each.started for each in self.pending) + len(self.notes)

    def _notes(self, index: int, later: bool = False) -> list[Entry]:
        return [
            Entry(f"n{i}", "note", note.text, tone=note.tone, body=note.body)
            for i, note in enumerate(self.notes)
            if note.after == index or (later and note.after > index)
        ]

    def _turn(self, index: int, turn: TurnView) -> list[Entry]:
        question = Entry(f"q{index}", "user", turn.question, turn=index)
        if not _answered(turn):
            return [question]
        aside = f"{turn.seconds:.1f} s" if turn.seconds else ""
        answer = Entry(f"a{index}", "model", turn.answer, aside=aside, turn=index)
        return [question, replace(answer, badge=self._badge(turn))]

    def _badge(self, turn: TurnView) -> str:
        remarks = []
        edit = self.edits.get(turn.edited_by)
        if edit:
            before = f"“{clip(edit.answer_before, 24)}”" if edit.answer_before else "nothing"
            remarks.append(f"▸ after edit #{edit.number} · before: {before}")
        if turn.stopped == "cancelled":
            remarks.append("■ stopped by you")
        elif turn.stopped == "length":
            remarks.append("■ cut off at the token limit")
        return "\n".join(remarks)

    def _refresh_entries(self) -> None:
        """Bring the mounted messages in line with `entries`, touching only what differs."""
        wanted = [*islice(self._newest_first(), self._window)][::-1]
        self.query_one("#welcome").display = not wanted
        hidden = self._count() - len(wanted)
        more = self.query_one("#load-more", Static)
        more.display = hidden > 0
        more.update(f"↑ {hidden} earlier message{'s' if hidden > 1 else ''} · m to load more")
        keys = {entry.key for entry in wanted}
        for key in [key for key in self._views if key not in keys]:
            self._views.pop(key).remove()
        fresh: list[MessageView] = []
        for entry in wanted:
            view = self._views.get(entry.key)
            if view is None:
                fresh.append(MessageView(entry))
                continue
            view.show(entry)
            self._mount_before(view, fresh)
            fresh = []
        self._mount_before(None, fresh)
        if self.follow:
            self.call_after_refresh(self._to_end)
        self._point()

    def _mount_before(self, view: MessageView | None, fresh: Sequence[MessageView]) -> None:
        """New messages, all at once; at the end where there is no `view`."""
        self._views.update({each.entry.key: each for each in fresh})
        if fresh:
            self.mount(*fresh, before=view)

    # -- scrolling ---------------------------------------------------------------------------

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self.follow, self._held = round(new) >= self.max_scroll_y, False
        self._hint()

    def watch_virtual_size(self) -> None:
        """All is as long as it is only when a scroll bar has taken its column."""
        if self.follow:
            self.call_after_refresh(self._to_end)

    def on_resize(self) -> None:
        if self.follow:
            self.call_after_refresh(self._to_end)

    def _follow(self) -> None:
        self.follow, self._held, self._fresh = True, False, ""

    def _to_end(self) -> None:
        """Show the end, or the beginning of fresh notes that fill more than the screen."""
        fresh = self._views.get(self._fresh)
        region = fresh.virtual_region if fresh is not None else None
        if region is None or region.area:  # else it has no place yet; it gets one with a resize
            self._fresh = ""
        if self.follow and region and region.y < self.max_scroll_y:
            self.scroll_to(y=region.y, animate=False, immediate=True)
            self.follow, self._held = False, True
        elif self.follow:
            self.scroll_end(animate=False, immediate=True)
        self._hint()

    def _hint(self) -> None:
        self.border_subtitle = "" if self.follow else "↓ more below · Ctrl+End"

    def action_jump_end(self) -> None:
        """To the last message, following what comes."""
        self._follow()
        self.cursor = len(self._ordered()) - 1
        self._point()
        self.call_after_refresh(self._to_end)

    def action_load_more(self) -> None:
        """Mount some of the older messages."""
        self.follow = False
        self._window += MORE
        self._refresh_entries()

    # -- choosing a message ------------------------------------------------------------------

    def _ordered(self) -> list[MessageView]:
        return [view for view in self.children if isinstance(view, MessageView)]

    def on_focus(self) -> None:
        views = self._ordered()
        answers = [i for i, view in enumerate(views) if view.entry.kind == "model"]
        self.cursor = answers[-1] if answers else len(views) - 1
        self._point()

    def on_blur(self) -> None:
        self._point(clear=True)

    def _point(self, clear: bool = False) -> None:
        """Mark the chosen message, while the transcript has the focus."""
        for index, view in enumerate(self._ordered()):
            view.set_class(self.has_focus and not clear and index == self.cursor, "-chosen")

    def action_cursor(self, step: int) -> None:
        """To the message above or below; at the top, older ones are loaded."""
        views = self._ordered()
        if self.cursor + step < 0 and self.query_one("#load-more").display:
            self.action_load_more()
            return
        if views:
            self.cursor = min(max(self.cursor + step, 0), len(views) - 1)
            self._point()
            views[self.cursor].scroll_visible(animate=False)

    def reveal(self, turn: int, *, question: bool = False) -> None:
        """Choose the question or the answer of a turn, mounted if need be, and show it."""
        key = f"{'q' if question else 'a'}{turn}"
        keys = [entry.key for entry in self.entries()]
        if key not in keys:
            key = f"q{turn}"
        self.follow = False
        self._window = max(self._window, len(keys) - keys.index(key))
        self._refresh_entries()
        self.focus()
        self.call_after_refresh(self._choose, key)

    def _choose(self, key: str) -> None:
        views = self._ordered()
        self.cursor = next((i for i, view in enumerate(views) if view.entry.key == key), -1)
        self._point()
        if self.cursor >= 0:
            views[self.cursor].scroll_visible(animate=False)

    def action_first(self) -> None:
        self.cursor = 0
        self._point()
        self.scroll_home(animate=False)

    def action_act(self, action: str) -> None:
        views = self._ordered()
        if 0 <= self.cursor < len(views):
            entry = views[self.cursor].entry
            turn = self.turns[entry.turn] if 0 <= entry.turn < len(self.turns) else None
            self.post_message(self.Acted(action, turn, entry.text))


def _answered(turn: TurnView) -> bool:
    return bool(turn.answer or turn.stopped)


def _waiting(place: int, each: Pending) -> list[Entry]:
    question = Entry(f"q{place}", "user", each.question, aside="" if each.started else "queued")
    if not each.started:
        return [question]
    return [question, Entry(f"a{place}", "model", each.answer, live=True)]
