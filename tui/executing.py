"""A recording done again on a live model: every edit computed anew, every question asked again.

Nothing is written anywhere. Each act begins from the state that the recording says it began
from, so that one that drifts does not carry all others with it: conversations are those that
were recorded, and only the edits are those of this run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.config import as_texts
from engine.errors import LLMEditError
from engine.events import EditApplied, EditPlanned, Event, Loading, ReplyEnded, Token
from engine.ledger import RESOLVED, Ledger
from engine.requests import Request
from sessions.errors import SessionError
from sessions.rows import EditRow

from .drift import Comparison, Difference, compare, of_events, of_row
from .prompts import fitting
from .tape import MARKS, Act, Tape
from .timeline import Turn, history

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.lm import LM

ASKED = ("ask", "retry")
NOT_DONE = {
    "aside": "its text was not recorded",
    "refused": "it came to nothing, and what was asked for was not recorded",
    "cancelled": "it was stopped by a person",
    "interrupted": "its process was killed",
    "running": "it is running, in another process",
}


@dataclass(frozen=True)
class Done:
    """What became of one act.

    state       identical | close (within the tolerance) | drifted | failed | skipped
    why         of a failed or skipped one, in words
    n           values that were compared
    drifts      differences beyond the tolerance
    largest     of the differences within it, if there are any
    stored      of an answer that drifted: whether it is the recorded one with the recorded patches
                in place of those computed anew; None where that was not tried
    """

    act: Act
    state: str
    why: str = ""
    n: int = 0
    drifts: tuple[Difference, ...] = ()
    largest: Difference | None = None
    stored: bool | None = None


@dataclass(frozen=True)
class Report:
    """differences: of model, dtype, device and libraries, said before anything is compared."""

    tolerance: float
    same_model: bool
    differences: tuple[Difference, ...]
    done: tuple[Done, ...]

    @property
    def drifted(self) -> bool:
        """Whether anything came out otherwise."""
        return any(each.state in ("drifted", "failed") for each in self.done)

    def count(self, state: str) -> int:
        return sum(each.state == state for each in self.done)


def differences(tape: Tape, lm: LM) -> tuple[Difference, ...]:
    """In what the model and the machine differ from those of the recording."""
    from engine.outcome import versions

    model = tape.recording.session.model
    recorded: dict[str, Any] = {"model": model.fingerprint, "dtype": model.dtype}
    found: dict[str, Any] = {"model": lm.fingerprint, "dtype": _short(lm.dtype)}
    made = [edit for edit in tape.recording.edits if edit.state == "done"]
    if made:
        recorded |= {"device": made[-1].device, **made[-1].versions}
        found |= {"device": str(lm.device), **versions()}
    return compare(recorded, found).differences


def _short(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


class Execution:
    """One run over a tape.

    tolerance   of numbers (see `drift.Difference`); words must be the same
    max_tokens  of an answer, where the recorded one was not longer
    """

    def __init__(self, tape: Tape, lm: LM, *, tolerance: float, max_tokens: int) -> None:
        self.tape = tape
        self.lm = lm
        self.tolerance = tolerance
        self.max_tokens = max_tokens
        self.same_model = tape.recording.session.model.fingerprint == lm.fingerprint
        self._made: dict[str, Edit] = {}  # computed in this run
        self._moved: set[str] = set()  # those whose patches are not the recorded ones
        self._lost: dict[str, str] = {}  # those that could not be made again, and why
        self._replies = {
            act.answer.node: event
            for act in tape.acts
            for event in act.events
            if act.answer is not None and isinstance(event, ReplyEnded)
        }

    def run(self) -> Generator[Event, None, Report]:
        """Do every act again, in order. Yields what the methods and the model say."""
        done: list[Done] = []
        acts = self.tape.acts
        for index, act in enumerate(acts):
            yield Loading(stage="execute", done=index, total=len(acts), unit="acts")
            done.append((yield from self._act(act)))
        differing = differences(self.tape, self.lm)
        return Report(self.tolerance, self.same_model, differing, tuple(done))

    # -- acts --------------------------------------------------------------------------------

    def _act(self, act: Act) -> Generator[Event, None, Done]:
        try:
            if act.kind in ASKED:
                return (yield from self._asked(act))
            if act.kind == "correct":
                return (yield from self._corrected(act))
            if act.kind in MARKS:
                return (yield from self._moved_to(act))
        except (LLMEditError, SessionError) as error:
            return Done(act, "failed", str(error))
        return Done(act, "skipped", NOT_DONE.get(act.kind, "there is nothing to compute in it"))

    def _asked(self, act: Act) -> Generator[Event, None, Done]:
        if act.answer is None or not act.turns:
            return Done(act, "skipped", "no answer was recorded")
        node = act.nodes[-1].id
        if missing := self._missing(node):
            return Done(act, "skipped", missing)
        return (yield from self._said(act, node))

    def _corrected(self, act: Act) -> Generator[Event, None, Done]:
        row = act.edit
        state = row.state if row else "running"
        if row is None or state in NOT_DONE:
            return Done(act, "skipped", NOT_DONE[state])
        if missing := self._missing(act.nodes[0].parent):
            self._lost[row.id] = missing
            return Done(act, "skipped", missing)
        try:
            edit, events = yield from self._edit(act, row)
        except LLMEditError as error:
            self._lost[row.id] = f"edit #{act.number} could not be made again"
            same = state == "failed" and row.error in (str(error), error.message)
            return Done(act, "identical" if same else "failed", str(error), n=1)
        if state == "failed":
            drift = Difference("outcome", row.error, "it did not fail", math.inf)
            return Done(act, "drifted", n=1, drifts=(drift,))
        self._made[row.id] = edit
        told = any(isinstance(event, EditApplied) for event in act.events)
        recorded = of_events(act.events) if told else of_row(row)
        found = of_events(events)
        if not told:
            found = _like(recorded, found)
        both = _joined(compare(recorded, found), self._patches(row, edit))
        if act.answer is None or not act.turns:
            return self._done(act, both)
        again = yield from self._said(act, act.nodes[-1].id)
        return self._done(act, both, again)

    def _moved_to(self, act: Act) -> Generator[Event, None, Done]:
        """After an undo, redo or drop: the ledger, and the answer that stands again."""
        node = act.nodes[-1]
        if missing := self._missing(node.id):
            return Done(act, "skipped", missing)
        ledger = compare(
            {"ledger": node.ledger_hash}, {"ledger": self._ledger(node.id).fingerprint()}
        )
        before = act.before[-1].answer if act.before else ""
        if not act.turns or act.turns[-1].answer in ("", before) or act.turns[-1].stopped:
            return self._done(act, ledger)
        again = yield from self._said(act, node.id)
        return self._done(act, ledger, again)

    # -- parts -------------------------------------------------------------------------------

    def _edit(self, act: Act, row: EditRow) -> Generator[Event, None, tuple[Edit, list[Event]]]:
        """The method, run again with everything that was recorded of it."""
        from engine.batch import correct_batch
        from engine.correct import correct
        from engine.resolve import resolve

        requests = [Request.from_json(r) for r in row.request.get("requests") or [row.request]]
        ledger = self._ledger(act.nodes[0].parent)
        planned = next((e for e in act.events if isinstance(e, EditPlanned)), None)
        how: dict[str, Any] = {
            "overrides": as_texts(planned.hparams if planned else row.hparams),
            "seed": row.seed,
            "edit_id": row.id,
        }
        if row.method == RESOLVED:
            work = resolve(self.lm, ledger, **how)
        else:
            how["method"] = row.method
            how["probes"] = any(m.name not in ("said", "weight") for m in row.metrics)
            if len(requests) == 1:
                work = correct(self.lm, ledger, requests[0], **how)
            else:
                work = correct_batch(self.lm, ledger, requests, **how)
        events: list[Event] = []
        with closing(work):
            while True:
                try:
                    event = next(work)
                except StopIteration as stop:
                    return stop.value.edit, events
                events.append(event)
                yield event

    def _said(self, act: Act, node: str) -> Generator[Event, None, Done]:
        """The last turn that stands after the act, asked again in its own conversation."""
        turn = act.turns[-1]
        before = () if turn.fresh else history(act.turns[:-1])
        ended = self._replies.get(turn.node)
        found = yield from self._answer(turn, before, self._ledger(node), ended)
        both = compare({"answer": turn.answer}, {"answer": found})
        if not both.differences or not self.same_model or not self._moved & set(self._active(node)):
            return self._done(act, both)
        kept = yield from self._answer(turn, before, self._stored(node), ended)
        return dataclasses.replace(self._done(act, both), stored=kept == turn.answer)

    def _answer(
        self,
        turn: Turn,
        before: tuple[tuple[str, str], ...],
        ledger: Ledger,
        ended: ReplyEnded | None,
    ) -> Generator[Event, None, str]:
        """What the model says; of an answer that was stopped, as much as there is of it."""
        lm = self.lm
        wanted = max(self.max_tokens, ended.tokens if ended else 0)
        if ended is not None and ended.reason == "length":
            wanted = ended.tokens
        fit = fitting(lm, turn, before, wanted)
        temperature, seed = (ended.temperature, ended.seed) if ended else (0.0, 0)
        said = ""
        with (
            lm.active(ledger.patches()),
            closing(
                lm.generate(fit.prompt, max_tokens=fit.room, temperature=temperature, seed=seed)
            ) as replies,
        ):
            for event in replies:
                if isinstance(event, ReplyEnded):
                    return event.text
                said += event.text if isinstance(event, Token) else ""
                if turn.stopped == "cancelled" and len(said.rstrip()) >= len(turn.answer):
                    break
                yield event
        return said.rstrip()[: len(turn.answer)]

    def _patches(self, row: EditRow, edit: Edit) -> Comparison:
        """How far the patches are from the recorded ones, which fit only the same model."""
        if not self.same_model:
            return Comparison(0, ())
        from engine.edit import Edit as Stored

        old = Stored.load(row.body, self.tape.recording.tensors(row))
        if [(p.kind, p.site) for p in old.patches] != [(p.kind, p.site) for p in edit.patches]:
            there, here = ([p.site for p in each.patches] for each in (old, edit))
            self._moved.add(row.id)
            return Comparison(1, (Difference("patches", there, here, math.inf),))
        found = []
        for a, b in zip(old.patches, edit.patches, strict=True):
            size = _distance(a.tensors(), b.tensors())
            if size > 0:
                self._moved.add(row.id)
                found.append(Difference(f"patch {a.site}", "as stored", "computed anew", size))
        return Comparison(len(old.patches), tuple(found))

    def _active(self, node: str | None) -> Sequence[str]:
        return self.tape.recording.states[node].active if node else ()

    def _missing(self, node: str | None) -> str:
        """Why the state at a node cannot be made; "" when it can."""
        return next((self._lost[id] for id in self._active(node) if id in self._lost), "")

    def _ledger(self, node: str | None) -> Ledger:
        """The edits in force at a node, as this run computed them."""
        return Ledger([self._made[id] for id in self._active(node)])

    def _stored(self, node: str) -> Ledger:
        """The edits in force at a node, as they were recorded."""
        from engine.edit import Edit

        recording = self.tape.recording
        rows = {row.id: row for row in recording.edits}
        active = (rows[id] for id in self._active(node))
        return Ledger([Edit.load(row.body, recording.tensors(row)) for row in active])

    def _done(self, act: Act, both: Comparison, again: Done | None = None) -> Done:
        n, drifts, stored = both.n, both.beyond(self.tolerance), None
        if again is not None:
            n, drifts, stored = n + again.n, drifts + again.drifts, again.stored
        state = "drifted" if drifts else "close" if both.differences else "identical"
        within = [each for each in both.differences if each.size <= self.tolerance]
        largest = max(within, key=lambda each: each.size, default=None)
        return Done(act, state, n=n, drifts=drifts, largest=largest, stored=stored)


def _like(recorded: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The part of `found` that `recorded` has too."""
    return {
        key: _like(value, found[key]) if isinstance(value, dict) else found[key]
        for key, value in recorded.items()
        if key in found
    }


def _joined(*parts: Comparison) -> Comparison:
    return Comparison(
        sum(part.n for part in parts), tuple(d for part in parts for d in part.differences)
    )


def _distance(recorded: dict[str, Any], found: dict[str, Any]) -> float:
    """The largest relative distance of two tensors of the same name; infinite for other shapes."""
    if recorded.keys() != found.keys():
        return math.inf
    sizes = [0.0]
    for name, a in recorded.items():
        b = found[name].detach().to(a.device)
        if a.shape != b.shape:
            return math.inf
        norm = float(a.double().norm())
        size = float((a.double() - b.double()).norm())
        sizes.append(size / norm if norm else (math.inf if size else 0.0))
    return max(sizes)
