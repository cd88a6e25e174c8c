"""What every front end talks to: a chat with a model that can be corrected.

Nothing here blocks, and nothing imports torch or a user interface: each request is a job on the
engine's own thread, whose events can be read while it runs, and `snapshot()` is the state to
show. The work itself is in `tui.conversation`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from engine.events import Event, Loaded
from engine.worker import Job, Worker

from .archive import Archive
from .conversation import Conversation
from .options import DEFAULT_METHOD, DEFAULT_MODEL, Options
from .views import Correction, Snapshot

if TYPE_CHECKING:
    from engine.requests import Request
    from sessions.rows import SessionRow

    from .compare import CompareView
    from .states import StateView
    from .views import (
        CorrectionView,
        Moved,
        Proposal,
        ReplyView,
        TurnView,
        UndoPlan,
        UndoView,
    )
    from .weighing import Preview, Weighed
    from .why import WhyView

T = TypeVar("T")

PATIENCE = 1.0  # seconds that loading waits for a picture


class Assistant:
    """A conversation with one model, its corrections, and their record.

    on_change is called after every event, on the thread of the job; it must only signal.
    archive    the sessions on disk, without waiting for the engine
    """

    def __init__(
        self, options: Options, on_change: Callable[[Job[Any]], None] | None = None
    ) -> None:
        self.options = options
        self._on_change = on_change
        self._conversation = Conversation(options)
        self._snapshot = Snapshot(
            model=options.model or DEFAULT_MODEL, method=options.method or DEFAULT_METHOD
        )
        self.archive = Archive(options.home, on_change)
        self.worker = Worker(self._saw, at_end=self._conversation.close)

    # -- jobs --------------------------------------------------------------------------------

    def recall(self) -> Job[None]:
        """Open the sessions and read the one to go on with: it can be shown before its model
        is there. `load` goes on from here, or does this too."""
        return self._submit("recall", self._conversation.recall)

    def load(self, after: threading.Event | None = None) -> Job[Loaded]:
        """Open the sessions, load the model, apply the session's edits.

        after  waited for first, not for long: importing torch would slow down what sets it

        Edits that earlier processes left unfinished are said in Note events. Then what the
        first correction needs is computed whenever nothing else is asked.
        """
        return self._submit("load", lambda: self._load(after))

    def ask(self, text: str, *, fresh: bool = False, statement: bool = False) -> Job[ReplyView]:
        """Ask and stream the answer.

        fresh      as the first question of a conversation
        statement  a text to be continued instead of a question
        """
        return self._submit("ask", lambda: self._conversation.ask(text, fresh, statement))

    def retry(self) -> Job[ReplyView]:
        """Ask the last question again; its new answer takes the place of the old one."""
        return self._submit("ask", lambda: self._conversation.retry())

    def correct(
        self,
        target: str,
        *,
        turn: TurnView | None = None,
        question: str | None = None,
        subject: str | None = None,
        old: str | None = None,
        method: str | None = None,
        hp: dict[str, str] | None = None,
        statement: bool = False,
        rephrases: Sequence[str] = (),
        neighbours: Sequence[str] = (),
        history: Sequence[tuple[str, str]] = (),
        probes: bool = True,
    ) -> Job[CorrectionView]:
        """Change the model so that it answers `target`.

        turn       the question is that of this turn, the last answered one by default; it is
                   asked again afterwards, in its own context
        question   a question (or a statement to be continued) that was not asked here
        subject    None: the most likely span of the question
        history    (question, answer) turns before a `question` that was not asked here
        probes     measure rephrasings, neighbours and fluency before and after
        """
        asked = Correction(
            target=target,
            turn=turn.id if turn else None,
            question=question,
            subject=subject,
            old=old,
            method=method or self.snapshot().method,
            hp={**self.options.hp, **(hp or {})},
            statement=statement,
            rephrases=tuple(rephrases),
            neighbours=tuple(neighbours),
            history=tuple(history),
            probes=probes,
        )
        return self._submit("correct", lambda: self._conversation.correct(asked, self.worker))

    def correct_batch(
        self,
        requests: Sequence[Request],
        *,
        method: str | None = None,
        hp: dict[str, str] | None = None,
        probes: bool = True,
    ) -> Job[CorrectionView]:
        """Change the answers to several questions in one edit; the method must allow it."""
        asked = Correction(
            method=method or self.snapshot().method,
            hp={**self.options.hp, **(hp or {})},
            probes=probes,
        )
        facts = tuple(requests)
        make = self._conversation.correct_batch
        return self._submit("correct", lambda: make(facts, asked, self.worker))

    def resolve(self, hp: dict[str, str] | None = None) -> Job[CorrectionView]:
        """Solve the closed-form edits in force again, together; the outcome supersedes them."""
        given = dict(hp or {})
        return self._submit("correct", lambda: self._conversation.resolve(given, self.worker))

    def propose(self, turn: TurnView | None = None) -> Job[Proposal]:
        """What a correction of `turn` (default: the last answered one) would be about."""
        id = turn.id if turn else None
        return self._submit("propose", lambda: self._conversation.propose(id))

    def weigh(self, turn: TurnView, target: str, method: str) -> Job[Weighed]:
        """How the model sees a target, and what such edits have cost."""
        weighing = self._conversation.weighing
        return self._submit("weigh", lambda: weighing.weigh(turn.id, target, method))

    def preview(self, turn: TurnView, target: str, subject: str | None) -> Job[Preview]:
        """What the checks of a correction answer before it."""
        weighing = self._conversation.weighing
        return self._submit("preview", lambda: weighing.preview(turn.id, target, subject))

    def undo(self, count: int = 1) -> Job[UndoView]:
        """Take the last edits off, `count` of them or none."""
        return self._submit("undo", lambda: self._conversation.past.undo(count))

    def redo(self, count: int = 1) -> Job[UndoView]:
        """Put the last undone edits back, `count` of them or none."""
        return self._submit("redo", lambda: self._conversation.past.redo(count))

    def drop(self, edit_id: str) -> Job[UndoView]:
        """Take one edit off, wherever it stands."""
        return self._submit("drop", lambda: self._conversation.past.drop(edit_id))

    def forget(self, number: int | None = None) -> Job[TurnView]:
        """Leave question and answer `number` out of the conversation; the last by default."""
        return self._submit("forget", lambda: self._conversation.past.forget(number))

    def remember(self) -> Job[TurnView]:
        """Take what was forgotten last back into the conversation."""
        return self._submit("remember", lambda: self._conversation.past.remember())

    def why(self, number: int | None = None) -> Job[WhyView]:
        """Which edits had a part in answer `number`, counted from 1; in the last by default."""
        return self._submit("why", lambda: self._conversation.explaining.why(number))

    def plan(self, node: str) -> Job[UndoPlan]:
        """What `undo_to` would do."""
        return self._submit("plan", lambda: self._conversation.past.plan(node))

    def undo_to(self, node: str) -> Job[Moved]:
        """Take off every edit that was not in force at a node of the session; stand there."""
        return self._submit("undo_to", lambda: self._conversation.past.undo_to(node))

    def branch(self, node: str) -> Job[Moved]:
        """Stand at a message of the session, with the edits in force there."""
        return self._submit("branch", lambda: self._conversation.past.branch(node))

    def open(self, session: str) -> Job[Moved]:
        """Go on with another session of the same model."""
        return self._submit("open", lambda: self._conversation.past.open(session))

    def states(self) -> Job[tuple[StateView, ...]]:
        """The states of the model that can be compared."""
        return self._submit("states", lambda: self._conversation.comparing.states())

    def compare(self, a: str, b: str, prompts: Sequence[str] = ()) -> Job[CompareView]:
        """Ask the same of the model in two states (`tui.states` says how they are written).

        prompts  besides those of the edits by which the states differ
        The job's result is the comparison as far as it has come, also while it runs.
        """

        def make() -> Generator[Event, None, CompareView]:
            job = self.worker.current
            return self._conversation.comparing.compare(a, b, tuple(prompts), job)

        return self._submit("compare", make)

    def rename(self, title: str) -> Job[str]:
        """Give the session a title."""
        return self._submit("rename", lambda: self._conversation.rename(title))

    def sessions(self) -> Job[list[SessionRow]]:
        """All sessions, last used first."""
        return self.archive.sessions()

    def input_history(self, limit: int = 100_000) -> Job[list[str]]:
        """What was typed before, newest first, in all sessions; each text once."""
        return self._submit("history", lambda: self._conversation.input_history(limit))

    # -- state -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state to show; any thread."""
        found, method = self._snapshot, self._conversation.method
        return dataclasses.replace(found, busy=self.worker.busy, method=method or found.method)

    def set_method(self, name: str) -> None:
        """Correct with this method from now on. Raises UnknownName."""
        from engine import methods

        self._conversation.choose(methods.get(name).name)

    def close(self, timeout: float = 2.0) -> None:
        """Cancel what runs, close the session and stop the engine's thread."""
        self.archive.close(timeout)
        self.worker.close(timeout)

    # -- the engine's thread -----------------------------------------------------------------

    def _submit(self, kind: str, make: Callable[[], Generator[Event, None, T]]) -> Job[T]:
        def run() -> Generator[Event, None, T]:
            try:
                return (yield from make())
            finally:  # before JobEnded: who waits for the job finds the new state
                self._snapshot = self._conversation.view()

        return self.worker.submit(kind, run)

    def _load(self, after: threading.Event | None) -> Generator[Event, None, Loaded]:
        if after is not None:
            after.wait(PATIENCE)
        loaded = yield from self._conversation.load()
        work = self._conversation.idle_work() if self.options.prepare else None
        if work is not None:
            self.worker.set_idle(work)
        return loaded

    def _saw(self, job: Job[Any]) -> None:
        self._conversation.saw(job)
        if self._on_change is not None:
            self._on_change(job)
