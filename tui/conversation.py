"""A chat, its model and its edits: the state that the engine's thread owns.

Every public generator here is a job: it yields events, and being closed between two of them
leaves model, ledger and record as if the job had not begun (a reply keeps what was said).
torch is imported when the model is loaded, not before.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from engine import methods
from engine.errors import BadInput, BadRequest, ModelUnavailable
from engine.events import Event, Loaded, Note, Problem
from engine.worker import Job, Worker
from sessions.errors import SessionError

from .answering import answer
from .looking import correction_view, edits_of, look, turn_id, turn_view
from .past import Past
from .recorder import Recorder
from .subjects import ordered
from .timeline import Turn, history
from .views import (
    Correction,
    CorrectionView,
    EditView,
    Proposal,
    ReplyView,
    Snapshot,
    TurnView,
)

if TYPE_CHECKING:
    from engine.ledger import Ledger
    from engine.lm import LM
    from engine.outcome import Outcome
    from engine.requests import Request

    from .compare import Comparing
    from .opening import Opening
    from .options import Options
    from .preparing import Preparing
    from .weighing import Weighing
    from .why import Explaining

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Generator[Event, None, T]

_with = dataclasses.replace


class Conversation:
    """One chat with one model. Everything here runs on the engine's thread.

    turns   on the way to the tip, oldest first
    ledger  the edits of the live model, once it is loaded
    method  the method that corrections use unless they name one
    past    going back: undo and its kin, branches, other sessions
    explaining  why its answers are as they are
    comparing  what the model says in other states
    weighing   what is known of a correction before it is made
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.method = options.method
        self.turns: list[Turn] = []
        self.ledger: Ledger | None = None
        self.past = Past(self)
        self._opening: Opening | None = None  # between `recall` and `load`
        self._record: Recorder | None = None
        self._lm: LM | None = None
        self._ahead: Preparing | None = None
        self._chosen = False  # the method was, since the session was opened
        self._told = ""  # the last trouble with recording that was said
        self._views = Snapshot(model=options.model, method=options.method)

    # -- what is not needed to open a session is imported when it is asked for ---------------

    @cached_property
    def comparing(self) -> Comparing:
        from .compare import Comparing

        return Comparing(self)

    @cached_property
    def explaining(self) -> Explaining:
        from .why import Explaining

        return Explaining(self)

    @cached_property
    def weighing(self) -> Weighing:
        from .weighing import Weighing

        return Weighing(self)

    # -- beginning and end -------------------------------------------------------------------

    def recall(self) -> Work[None]:
        """Open the record and read the session to go on with, without its model."""
        from .opening import Opening

        opening = Opening(self.options)
        yield from opening.record()
        self._opening, self._record, self.turns = opening, opening.recorder, opening.turns
        self.method = self.method or opening.method
        self._views = Snapshot(model=opening.model, method=self.method)

    def load(self) -> Work[Loaded]:
        """Open the record, load the model, apply the session's edits again."""
        if self._opening is None:
            yield from self.recall()
        opening, self._opening = self._opening, None
        assert opening is not None, "it was just made"
        loaded = yield from opening.load()
        self._lm, self.ledger, self.turns = opening.lm, opening.ledger, opening.turns
        yield from self.trouble()
        return loaded

    def idle_work(self) -> Work[None] | None:
        """What the first correction needs and can be computed before it is asked for."""
        if self._lm is None:
            return None
        from .preparing import Preparing

        self._ahead = Preparing(self._lm, self.method, self.options.hp, self.options.seed)
        return self._ahead.work

    def _prepared(self, method: str) -> Work[None]:
        if self._ahead is not None:
            yield from self._ahead.ended(method)
            self._ahead = None

    def saw(self, job: Job[Any]) -> None:
        if self._record is not None:
            self._record.saw(job)

    def choose(self, method: str) -> None:
        """Correct with this method from now on; any thread. The session keeps it."""
        self.method, self._chosen = method, True

    def keep_method(self) -> None:
        """Let the session have the method that was chosen in it."""
        record = self._record
        if self._chosen and record is not None and record.session is not None:
            method, session = self.method, record.session.id
            record.attempt(lambda store, _: store.set_method(session, method))
        self._chosen = False

    def close(self) -> None:
        """The last act of the engine's thread."""
        if self._record is not None:
            self.keep_method()
            self._record.close()

    # -- talking -----------------------------------------------------------------------------

    def ask(self, text: str, fresh: bool, statement: bool) -> Work[ReplyView]:
        """Ask, stream the answer, record both."""
        question = text.strip()
        if not question:
            raise BadRequest("the question is empty.")
        self.ready()
        turn = Turn(question=question, fresh=fresh, statement=statement)
        before = () if fresh or statement else history(self.turns)
        if not statement:
            node = self.recorder.message("user", question, fresh=fresh)
            turn = _with(turn, user=node.id if node else "")
        self.turns.append(turn)
        yield from self.trouble()
        return (yield from answer(self, before))

    def retry(self) -> Work[ReplyView]:
        """Ask the last question again: the new answer is the sibling of the old one."""
        self.ready()
        if not self.turns:
            raise BadInput("nothing was asked yet.")
        last = self.turns[-1]
        before = () if last.fresh or last.statement else history(self.turns[:-1])
        self.turns[-1] = _with(last, answer="", node="", edit="", stopped="")
        return (yield from answer(self, before, parent=last.user))

    # -- correcting --------------------------------------------------------------------------

    def propose(self, turn: str | None) -> Work[Proposal]:
        """The question of a turn, its answer, and what it may be about."""
        lm, ledger = self.ready()
        found = self.turns[self._place(turn)]
        from engine.subject import find_subject

        yield Note(text=f"looking for the subject of {found.question!r}")
        with lm.active(ledger.patches()):
            spans = find_subject(lm, found.question, found.answer, chat=not found.statement)
        subjects = tuple((span.text, span.score) for span in ordered(spans)[0])
        return Proposal(question=found.question, answer=found.answer, subjects=subjects)

    def correct(self, asked: Correction, worker: Worker) -> Work[CorrectionView]:
        """Edit the model; then ask the turn's question again in its own context.

        Once the edit stands, the job's result is set: a cancel of the second answer does not
        take the edit back.
        """
        from .editing import correction
        from .prompts import request_of, subject_of

        lm, ledger = self.ready()
        self.recorder.check()  # an edit that cannot be recorded is refused
        place = None if asked.question is not None else self._place(asked.turn)
        turn = self.turns[place] if place is not None else None
        if turn is None:
            context = asked.history
        else:
            context = () if turn.fresh else history(self.turns[:place])
        request = request_of(asked, turn, context)
        if request.subject is None and methods.get(asked.method).needs_subject:
            before = turn.answer if turn else ""
            subject = yield from subject_of(lm, ledger, request, before)
            request = _with(request, subject=subject)
        yield from self._prepared(asked.method)
        make = correction(lm, [request], asked, self.options.seed)
        parent = turn.user if turn and turn.user else None
        view = yield from self._edited([request], make, worker, parent=parent)
        if place is None or turn is None:
            return view
        if worker.current is not None:
            worker.current.result = view
        self.turns[place:] = [_with(turn, answer="", node="", stopped="")]
        yield from answer(self, context, parent=self.recorder.node, edit=view.edit.id)
        return _with(view, turn=self.turn_view(-1))

    def correct_batch(
        self, requests: Sequence[Request], asked: Correction, worker: Worker
    ) -> Work[CorrectionView]:
        """Several facts, none of them a turn's, as one edit."""
        from .editing import correction

        lm, _ = self.ready()
        self.recorder.check()
        yield from self._prepared(asked.method)
        make = correction(lm, requests, asked, self.options.seed)
        return (yield from self._edited(requests, make, worker))

    def resolve(self, hp: dict[str, str], worker: Worker) -> Work[CorrectionView]:
        """The closed-form edits in force, solved again as one that supersedes them."""
        from engine.resolve import resolvable, resolve

        lm, ledger = self.ready()
        self.recorder.check()
        seed = self.options.seed
        facts = [request for edit in resolvable(ledger) for request in edit.requests]

        def make(trial: Ledger) -> Work[Outcome]:
            return resolve(lm, trial, overrides=hp, seed=seed)

        return (yield from self._edited(facts, make, worker))

    def _edited(
        self,
        requests: Sequence[Request],
        make: Callable[[Ledger], Work[Outcome]],
        worker: Worker,
        *,
        parent: str | None = None,
    ) -> Work[CorrectionView]:
        """The work of `make`, recorded under `parent`."""
        from .editing import edited

        lm, ledger = self.ready()
        outcome = yield from edited(
            self.recorder,
            lm,
            ledger,
            requests,
            make,
            parent=parent,
            seed=self.options.seed,
            memory=worker.current.memory if worker.current else None,
        )
        return correction_view(outcome, self.edits(), self.recorder.session_id, lm.name)

    # -- the session -------------------------------------------------------------------------

    def rename(self, title: str) -> Work[str]:
        store, session = self.recorder.required()
        self.recorder.session = store.rename_session(session, title.strip())
        yield Note(text=f"the session is called {title.strip()!r}")
        return title.strip()

    def input_history(self, limit: int) -> Work[list[str]]:
        yield from ()
        if self._record is None or self._record.store is None:
            return []
        return self._record.store.input_history(limit)

    # -- state -------------------------------------------------------------------------------

    def view(self) -> Snapshot:
        """The state to show; what could not be read stays as it was."""
        try:
            self._views = self._look()
        except SessionError as error:
            log.warning("the session cannot be read: %s", error)
        return self._views

    def _look(self) -> Snapshot:
        base = _with(self._views, method=self.method or self._views.method)
        return look(base, self._lm, self._record, self.ledger, self.turns)

    def edits(self) -> tuple[EditView, ...]:
        """The session's edits, in any state."""
        return edits_of(self._record, self.ledger)

    def turn_view(self, place: int) -> TurnView:
        """A turn as front ends show it, by its place."""
        index = place % len(self.turns)
        return turn_view(self.turns[index], index, self.edits())

    # -- small parts -------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder:
        assert self._record is not None, "load() comes first"
        return self._record

    def ready(self) -> tuple[LM, Ledger]:
        """The model and its edits. Raises ModelUnavailable before they are loaded."""
        if self._lm is None or self.ledger is None:
            raise ModelUnavailable("no model is loaded.", "Its loading failed: see above.")
        return self._lm, self.ledger

    def _place(self, turn: str | None) -> int:
        """The index of a turn with an answer; the last one by default."""
        found = [i for i, t in enumerate(self.turns) if t.answer and turn in (None, turn_id(t, i))]
        if not found:
            raise BadInput("there is no answer to correct yet.", "Ask something first.")
        return found[-1]

    def turn(self, id: str | None) -> Turn:
        """A turn with an answer; the last one by default. Raises BadInput."""
        return self.turns[self._place(id)]

    def trouble(self) -> Work[None]:
        """Say once that the conversation is not being recorded."""
        trouble = self.recorder.trouble
        if trouble and trouble != self._told:
            yield Problem(
                error="NotRecorded",
                message=f"this conversation is not being recorded: {trouble}",
                exit_code=3,
            )
        self._told = trouble
