"""Writes what happens to the session database, from the engine's thread.

Chat goes on when the database cannot be written: the first failed write of a message or of
events is kept as `trouble`, and the next ones are tried again. An edit is different: it raises,
because an edit that is not recorded could be neither resumed nor undone later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.events import JobEnded, Token
from engine.worker import Job
from sessions.errors import SessionError, StoreReadOnly
from sessions.rows import Node, Session

if TYPE_CHECKING:
    from sessions.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_SECONDS = 0.25
RECORDED_JOBS = frozenset({"ask", "correct", "undo", "undo_to", "redo", "drop"})


class Recorder:
    """One store and, from the first thing worth keeping on, one session.

    store    None when the database could be opened only to find that it cannot be written
    trouble  why the last write failed, "" when all is well
    node     the node that events belong to now
    """

    def __init__(self, home: Path) -> None:
        self.store: Store | None = None
        self.session: Session | None = None
        self.trouble = ""
        self.node = ""
        self._create: Callable[[Store], Session] | None = None
        self._seen = 0  # events of the running job that were written
        self._job = ""
        self._flushed = 0.0
        from sessions.store import Store

        try:
            self.store = Store.open(home)
        except StoreReadOnly as error:
            self.trouble = str(error)

    def resume(self, session: Session) -> None:
        """Record into an existing session, from its tip on."""
        self.check().follow(session.id, session.tip)
        self.session = session
        self.node = ""

    def begin(self, create: Callable[[Store], Session]) -> None:
        """Record into a session that `create` makes when there is something to record.

        A chat that was opened and left leaves nothing behind.
        """
        self._create = create

    @property
    def session_id(self) -> str:
        return self.session.id if self.session else ""

    def check(self) -> Store:
        """The store. Raises StoreReadOnly where there is none that can be written."""
        if self.store is None:
            raise StoreReadOnly(
                f"this could not be recorded: {self.trouble}",
                "Set LLM_EDIT_HOME to a folder that can be written.",
            )
        return self.store

    def required(self) -> tuple[Store, str]:
        """The store and the session's id, made if need be. Raises SessionError."""
        store = self.check()
        if self.session is None:
            assert self._create is not None, "begin() or resume() comes first"
            self.session = self._create(store)
            store.follow(self.session.id)
        return store, self.session.id

    def attempt(self, write: Callable[[Store, str], T]) -> T | None:
        """Do a write that chat can live without; None, and `trouble`, when it fails."""
        try:
            result = write(*self.required())
        except SessionError as error:
            log.warning("not recorded: %s", error)
            self.trouble = str(error)
            return None
        self.trouble = ""
        return result

    def message(self, role: str, text: str, **fields: Any) -> Node | None:
        node = self.attempt(lambda store, session: store.add_message(session, role, text, **fields))
        if node is not None:
            self.node = node.id
        return node

    def saw(self, job: Job[Any]) -> None:
        """Called after each event: writes them now and then, and at the job's end."""
        if job.kind not in RECORDED_JOBS:
            return
        if job.id != self._job:
            self._job, self._seen = job.id, 0
        ended = isinstance(job.events[-1], JobEnded)
        if ended or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush(job)

    def _flush(self, job: Job[Any]) -> None:
        # Replies are kept whole: ReplyEnded has the text, the token count and the times.
        fresh = [e.to_json() for e in job.events[self._seen :] if not isinstance(e, Token)]
        self._seen = len(job.events)
        self._flushed = time.monotonic()
        if self.session is not None and fresh:
            node = self.node or None
            self.attempt(lambda store, session: store.add_events(session, node, job.id, fresh))

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
