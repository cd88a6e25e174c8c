"""What front ends show: frozen, plain values, safe to hand from thread to thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.events import Metric


@dataclass(frozen=True, kw_only=True)
class TurnView:
    """A question and its answer, as they stand on the path to the session's tip.

    id         the node of the answer; of the question while there is no answer yet
    asked      the node of the question
    question   what was asked
    answer     what the model said; "" while nothing has been said
    edited_by  number of the edit after which this question was asked again, 0 for none
    stopped    "" | "length" (ran into the token limit) | "cancelled" (stopped by the person)
    """

    id: str
    question: str
    answer: str = ""
    edited_by: int = 0
    seconds: float = 0.0
    stopped: str = ""
    statement: bool = False
    asked: str = ""


@dataclass(frozen=True, kw_only=True)
class EditView:
    """One edit of the session, in any state.

    number   1-based, in the order in which they were begun; what `/drop N` takes
    state    "running" | "applied" | "superseded" (stands, but does not act) | "undone" |
             "elsewhere" (in force on another branch only) | "failed" | "cancelled" | "interrupted"
    success  greedy free decoding says the target (only meaningful once it was applied)
    superseded_by  number of the later edit of the same question that acts instead, 0 for none
    """

    id: str
    number: int
    method: str
    subject: str
    question: str
    target: str
    state: str
    success: bool = False
    verdict: str = ""
    answer_before: str = ""
    answer_after: str = ""
    superseded_by: int = 0

    @property
    def fact(self) -> str:
        """What it makes the model say of what, in one line: gold → Au."""
        return f"{self.subject or self.question} → {self.target}"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a front end shows besides the events of the running job."""

    model: str
    method: str
    dtype: str = ""
    device: str = ""
    model_type: str = ""
    layers: int = 0
    width: int = 0
    chat: bool = True
    fingerprint: str = ""
    loaded: bool = False
    session_id: str = ""
    session_title: str = ""
    recording: bool = True  # False: the database cannot be written, nothing is kept
    trouble: str = ""  # why it is not being recorded
    turns: tuple[TurnView, ...] = ()
    edits: tuple[EditView, ...] = ()
    busy: bool = False

    @property
    def active(self) -> tuple[EditView, ...]:
        """The edits that act on the model now, in order."""
        return tuple(e for e in self.edits if e.state == "applied")

    def edit(self, number: int) -> EditView | None:
        return next((e for e in self.edits if e.number == number), None)


@dataclass(frozen=True, kw_only=True)
class ReplyView:
    """The end of an `ask` job."""

    turn: TurnView
    tokens: int
    seconds: float
    first_token: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An answer with the probabilities of the new and the old answer (NaN: not measured)."""

    answer: str
    p_new: float
    p_old: float


@dataclass(frozen=True, kw_only=True)
class FactView:
    """One fact of a batch that became one edit.

    already  it was answered so before, and is not in the edit
    """

    prompt: str
    subject: str
    target: str
    before: Measured
    after: Measured
    success: bool
    already: bool = False


@dataclass(frozen=True, kw_only=True)
class CorrectionView:
    """The end of a `correct` job: the edit was applied, whether or not it did what it should.

    turn     the question asked again in the same context; None for a correction of no turn
    superseded  earlier edits of the same question, which do not act while this one stands
    metrics  name -> {before, after, n, detail}, as in the Metric events
    facts    of a batch what became of each; `before` and `after` are those of the first
    """

    edit: EditView
    session_id: str
    model: str
    prompt: str
    before: Measured
    after: Measured
    turn: TurnView | None
    metrics: dict[str, dict[str, Any]]
    layers: tuple[dict[str, Any], ...]
    seconds: dict[str, float]
    steps: int
    losses: tuple[float, ...]
    versions: dict[str, str] = field(default_factory=dict)
    superseded: tuple[EditView, ...] = ()
    facts: tuple[FactView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the correction dialog is filled with. `subjects` is ranked, best first."""

    question: str
    answer: str
    subjects: tuple[tuple[str, float], ...]

    @property
    def subject(self) -> str:
        return self.subjects[0][0] if self.subjects else ""


@dataclass(frozen=True, kw_only=True)
class UndoView:
    """The end of an `undo`, `redo` or `drop` job.

    edit        the one that was moved last, of
    edits       all that were moved, in this order
    answer_now  the answer at the tip again (undo of an edit of the last turn), else ""
    active      the edits that act on the model now
    back        other edits that act again because of it: this one had superseded them
    out         edits that act no more because of it, or were put back and do not act: a later
                one supersedes them
    """

    action: str
    edit: EditView
    answer_now: str
    active: tuple[EditView, ...]
    edits: tuple[EditView, ...] = ()
    back: tuple[EditView, ...] = ()
    out: tuple[EditView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UndoPlan:
    """What an undo back to a place of the timeline will do.

    node     where the conversation will stand; None: where it stands now
    edits    that are taken off, in this order
    leaving  messages that leave the conversation; they stay in the timeline
    absent   edits in force at that place that were undone since: they stay undone
    """

    node: str | None
    edits: tuple[EditView, ...]
    leaving: int
    absent: tuple[EditView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The end of a `branch`, `undo_to` or `open` job: where the conversation stands now.

    action  "branch" | "undo_to" | "open"
    turns   of the conversation
    active  the edits that act on the model now
    undone  by an `undo_to`, in this order
    title   of the session, by which people know it
    """

    action: str
    turns: int
    active: tuple[EditView, ...]
    undone: tuple[EditView, ...] = ()
    title: str = ""
    answered: bool = True  # False: it stands at a question without an answer


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What `Assistant.correct` was asked; `turn` is the id of a turn."""

    method: str
    hp: dict[str, str]
    probes: bool
    target: str = ""
    turn: str | None = None
    question: str | None = None
    subject: str | None = None
    old: str | None = None
    statement: bool = False
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()  # before a question that is no turn's


def measured(metrics: Iterable[Metric]) -> dict[str, dict[str, Any]]:
    """Metric events by name, as {before, after, n, detail}."""
    return {
        m.name: {"before": m.before, "after": m.after, "n": m.n, "detail": m.detail}
        for m in metrics
    }
