"""A recording as acts: what was done, one after the other, with the events of each.

The tree of the session says what happened (also where a process was killed before its events
were written, or where an edit was undone from the command line); the events say how.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.events import EditApplied, EditPlanned, EditUndone, Event, JobEnded, Problem, from_json
from sessions.recording import Recording
from sessions.rows import EditRow, Message, Node, Told

from .timeline import Turn, edit_views, turns_on
from .tree import undone_of
from .views import EditView

MARKS = ("undo", "redo", "drop")


@dataclass(eq=False)
class Act:
    """One thing that was done.

    kind      ask | retry | correct | undo | redo | drop | refused (came to nothing before it left
              a trace in the tree) | aside (a text that was continued outside of the conversation)
              | forget | remember | note, or another kind of node
    events    of its job; none where they were not written
    question  that was asked or corrected, "" where there is none
    text      of a note, or of the message that is forgotten or remembered
    answer    that was given in the end
    edit      that was made, or undone, redone, dropped
    number    of that edit in the session, 1-based; 0 without one
    nodes     of the tree, in the order they grew
    before    the turns above its question; `place` is the index of the turn that it asks again
    turns     that stand afterwards; `edits` in the same way
    waited    seconds between the act before and this one; NaN where that is not known
    """

    kind: str
    events: list[Event] = field(default_factory=list)
    question: str = ""
    text: str = ""
    answer: Message | None = None
    edit: EditRow | None = None
    number: int = 0
    nodes: list[Node] = field(default_factory=list)
    before: tuple[Turn, ...] = ()
    place: int = -1
    turns: tuple[Turn, ...] = ()
    edits: tuple[EditView, ...] = ()
    waited: float = math.nan
    last_node: str | None = None  # that its last event belongs to

    @property
    def began(self) -> float:
        """Seconds since the epoch; NaN where nothing tells."""
        if not self.nodes:
            return math.nan
        created = datetime.fromisoformat(self.nodes[0].created).timestamp()
        planned = next((e.t for e in self.events if isinstance(e, EditPlanned)), 0.0)
        if self.kind == "retry" and self.events:  # its only node is the answer
            return created - self.events[-1].t
        return created - (planned if self.kind == "correct" else 0.0)

    @property
    def seconds(self) -> float:
        """How long it took; 0 where nothing tells."""
        if self.events:
            return self.events[-1].t
        return self.answer.seconds if self.answer else 0.0


@dataclass(frozen=True, repr=False)
class Tape:
    """The acts of a session in order. unknown: events of a kind that only later versions know."""

    recording: Recording
    acts: tuple[Act, ...]
    unknown: int


def tape(recording: Recording) -> Tape:
    """What was done in a session."""
    runs, unknown = _runs(recording.events)
    acts = _merged(_Acts(recording), runs)
    _settle(recording, acts)
    return Tape(recording, tuple(acts), unknown)


# -- jobs, from the events ----------------------------------------------------------------------


@dataclass
class _Run:
    """The events of one job. Its id repeats in other processes that used the session."""

    job: str
    events: list[Event] = field(default_factory=list)
    node: str | None = None  # of the last event

    def first(self, kind: type[Event]) -> Event | None:
        return next((event for event in self.events if isinstance(event, kind)), None)


def _runs(told: Sequence[Told]) -> tuple[list[_Run], int]:
    runs: list[_Run] = []
    going: dict[str, _Run] = {}
    unknown = 0
    for each in told:
        try:
            event = from_json(each.event)
        except (ValueError, TypeError):
            unknown += 1
            continue
        run = going.get(each.job)
        if run is None or (run.events and event.seq <= run.events[-1].seq):
            run = going[each.job] = _Run(each.job)
            runs.append(run)
        run.events.append(event)
        run.node = each.node
        if isinstance(event, JobEnded):
            del going[each.job]
    return [part for run in runs for part in _split(run)], unknown


def _split(run: _Run) -> Iterator[_Run]:
    """One part for each edit of a job that makes or undoes several."""
    begun, ended = 0, 0  # where the part begins, and where its edit has ended
    headed = False
    for index, event in enumerate(run.events):
        if isinstance(event, (EditPlanned, EditUndone)):
            if headed and ended > begun:
                yield _Run(run.job, run.events[begun:ended], run.node)
                begun = ended
            headed = True
        if isinstance(event, (EditApplied, EditUndone, Problem)):
            ended = index + 1
    yield _Run(run.job, run.events[begun:], run.node)


# -- acts, from the tree ------------------------------------------------------------------------


class _Acts:
    """The acts that left a trace in the tree."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.acts: list[Act] = []
        self.by_node: dict[str, Act] = {}
        self._nodes = {node.id: node for node in recording.nodes}
        self._edits = {edit.id: edit for edit in recording.edits}
        self._numbers = {edit.id: n for n, edit in enumerate(recording.edits, start=1)}
        for node in recording.nodes:
            self._take(node)

    def above(self, node: Node) -> Node | None:
        """The node it hangs under, carried states apart."""
        up = self._nodes.get(node.parent or "")
        while up is not None and up.kind == "carry":
            up = self._nodes.get(up.parent or "")
        return up

    def _take(self, node: Node) -> None:
        message = self.recording.messages.get(node.id)
        if node.kind == "carry":
            return
        if message is None:
            about = self.recording.messages.get(node.detail.get("message", ""))
            kind = "correct" if node.kind == "edit" else node.kind
            self._add(node, Act(kind, text=about.text if about else ""))
        elif message.role == "user":
            self._add(node, Act("ask", question=message.text))
        elif message.role == "assistant":
            self._answer(node, message)
        else:
            self._add(node, Act("note", text=message.text))

    def _add(self, node: Node, act: Act) -> None:
        act.nodes.append(node)
        act.edit = self._edits.get(node.target or "")
        act.number = self._numbers.get(node.target or "", 0)
        if act.kind == "correct" and act.edit is not None:
            act.question = act.edit.request.get("prompt", "")
        self.acts.append(act)
        self.by_node[node.id] = act

    def _answer(self, node: Node, message: Message) -> None:
        """To the question or the edit right above, unless that was answered: then asked again."""
        up = self.above(node)
        act = self.by_node.get(up.id) if up else None
        if act is None or act.answer is not None or act.kind not in ("ask", "correct"):
            act = Act("retry", question=self._asked(node))
            self._add(node, act)
        else:
            act.nodes.append(node)
            self.by_node[node.id] = act
        act.answer = message

    def _asked(self, node: Node) -> str:
        spoken = (self.recording.messages.get(n.id) for n in self.recording.path(node.id))
        asked = [m.text for m in spoken if m is not None and m.role == "user"]
        return asked[-1] if asked else ""

    def act_of(self, run: _Run) -> Act | None:
        """The act whose events these are."""
        planned, moved = run.first(EditPlanned), run.first(EditUndone)
        if isinstance(planned, EditPlanned):
            return next((a for a in self.acts if a.edit and a.edit.id == planned.edit), None)
        if isinstance(moved, EditUndone):
            return next((a for a in self.acts if _is_mark(a, moved) and not a.events), None)
        act = self.by_node.get(run.node or "") if run.job.startswith("ask") else None
        return act if act is not None and act.kind in ("ask", "retry") else None


def _is_mark(act: Act, moved: EditUndone) -> bool:
    return act.kind == moved.action and act.edit is not None and act.edit.id == moved.edit


def _merged(found: _Acts, runs: Sequence[_Run]) -> list[Act]:
    """Both in one order; a job without a trace in the tree becomes an act of its own."""
    waiting = list(found.acts)
    acts: list[Act] = []
    for run in runs:
        act = found.act_of(run)
        if act is not None and act.events:
            act = _again(act, run)
        if act is None:
            kind = "aside" if run.job.startswith("ask") else "refused"
            act = Act(kind, text=run.job.partition("-")[0])
        act.events, act.last_node = run.events, run.node
        if act in waiting:  # what came before it in the tree left no events
            index = waiting.index(act) + 1
            acts += waiting[:index]
            del waiting[:index]
        elif act not in acts:
            acts.append(act)
    return acts + waiting


def _again(act: Act, run: _Run) -> Act | None:
    """A second job that tells of the same question: it was asked again after a first attempt
    that gave no answer. If the first gave one, this job told of something else.
    """
    answered = act.nodes[-1].id if act.answer else ""
    if not answered or act.last_node == answered or run.node != answered:
        return None
    again = Act("retry", question=act.question, answer=act.answer, nodes=[act.nodes.pop()])
    act.answer = None
    return again


# -- what stood before and after ----------------------------------------------------------------


def _settle(recording: Recording, acts: Sequence[Act]) -> None:
    """Turns, edits and waiting times of the acts, in their order."""
    turns: tuple[Turn, ...] = ()
    active: tuple[str, ...] = ()
    undone: set[str] = set()
    begun = 0
    ended = math.nan
    for act in acts:
        tip = _tip(act)
        begun = max(begun, act.number)
        undone |= undone_of(act.nodes)
        act.turns = turns
        if tip is not None:
            said = {message.node: message for message in recording.conversation(tip.id)}
            act.turns = tuple(turns_on(recording.path(tip.id), said))
            active = recording.states[tip.id].active
        act.before, act.place = _place(recording, act, turns)
        act.edits = edit_views(recording.edits[:begun], active, undone)
        act.waited = act.began - ended
        ended = _end(act, ended)
        turns = act.turns


def _tip(act: Act) -> Node | None:
    """Where the session stood afterwards; None where the act moved nothing."""
    done = [n for n in act.nodes if n.kind != "edit" or (act.edit and act.edit.state == "done")]
    return done[-1] if done else None


def _place(recording: Recording, act: Act, turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], int]:
    """The turns above the act's question, and the index of the one that is asked again."""
    if act.kind == "ask":
        return act.turns[:-1], -1
    if act.kind == "retry":
        return act.turns[:-1], len(act.turns) - 1
    if act.kind != "correct" or not act.nodes:
        return turns, -1
    asked = [n.id for n in recording.path(act.nodes[0].id) if n.id in recording.messages]
    places = [i for i, turn in enumerate(turns) if asked and turn.user == asked[-1]]
    return turns, places[-1] if places else -1


def _end(act: Act, before: float) -> float:
    began = act.began
    return before if math.isnan(began) else began + act.seconds
