"""The store: every session, message and edit, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import catalog, removal, search, upkeep
from .codec import clean
from .database import Connection
from .rows import Hit, Removed, Session, SessionRow
from .tree_store import TreeStore

if TYPE_CHECKING:
    from .importing import Fingerprint
    from .recording import Recording

FILE = "sessions.db"
_ORPHAN_AGE = 3600.0  # seconds; a younger file may belong to an edit that is being recorded


class Store(TreeStore):
    """`sessions.db` and `tensors/` in a home folder.

    A store is for the thread that opened it: SQLite refuses other threads with ProgrammingError.
    Several processes, or several stores, may use one folder at the same time; `follow` keeps one's
    place in a session. Every method that writes does so in one transaction: it happens whole or,
    with a SessionError, not at all.
    """

    @classmethod
    def open(cls, home: Path, *, busy_timeout: float = 5.0) -> Store:
        """Open the store in `home`, made or brought up to date where needed.

        busy_timeout: seconds to wait for another process's write.
        Raises StoreUnreadable, StoreTooNew, StoreReadOnly, StoreFull, StoreLocked.
        """
        return cls(home, Connection.open(home / FILE, busy_timeout))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Models and sessions

    def add_model(
        self,
        name: str,
        source: str,
        fingerprint: str,
        dtype: str,
        model_type: str = "",
        info: Mapping[str, Any] | None = None,
    ) -> int:
        """The id of this model; source, type and info are brought up to date."""
        values = {
            "name": name,
            "source": source,
            "fingerprint": fingerprint,
            "dtype": dtype,
            "model_type": model_type,
        }
        with self.atomic():
            return catalog.add_model(self._db, values, info or {})

    def create_session(self, model_id: int, *, method: str, title: str = "") -> Session:
        with self.atomic():
            return self._session(catalog.create_session(self._db, model_id, method, title))

    def session(self, ref: str) -> Session:
        """By id, title, or 4 or more characters from either end of an id.

        Raises UnknownSession, also when several fit.
        """
        return self._session(catalog.find_session(self._db, ref))

    def _session(self, session_id: str) -> Session:
        return catalog.select(self._db, "WHERE session.id = :id", {"id": session_id})[0]

    def sessions(self) -> list[SessionRow]:
        """All sessions, last used first."""
        tail = "ORDER BY session.updated DESC, session.id DESC"
        return catalog.with_counts(self._db, catalog.select(self._db, tail, {}))

    def latest_session(self, model: str | None = None, *, edited: bool = False) -> Session | None:
        """The session last used, of the model with this name if one is given.

        edited  the one in which an edit was last made, taken off or put back
        """
        return catalog.latest(self._db, model, edited=edited)

    def rename_session(self, ref: str, title: str) -> Session:
        """Raises UnknownSession."""
        with self.atomic():
            session_id = catalog.find_session(self._db, ref)
            self._db.update("session", "id", session_id, {"title": clean(title)})
            return self._session(session_id)

    def set_method(self, session_id: str, method: str) -> None:
        """What the session's next corrections are made with."""
        with self.atomic():
            self._db.update("session", "id", session_id, {"method": method})

    def remove_sessions(self, refs: Sequence[str]) -> Removed:
        """Remove sessions for good, all or none: rows, index, tensor files that no other uses.

        Then the free space is given back, where nobody else has the database open just now.
        Raises UnknownSession, SessionBusy.
        """
        gone = [self.session(i) for i in dict.fromkeys(self.session(ref).id for ref in refs)]
        files = removal.remove(self._db, self._blobs, [session.id for session in gone])
        return Removed(tuple(gone), files, removal.vacuum(self._db))

    # Whole sessions

    def recording(self, ref: str) -> Recording:
        """A session as it was recorded, as it is at this moment: for replay and for export.

        Tensor files are read when they are asked for, and must still be there then. Raises
        UnknownSession.
        """
        from . import recording

        with self._db.snapshot():
            return recording.read(self._db, self.session(ref), self._blobs.chunks)

    def add_recording(
        self,
        found: Recording,
        *,
        of: Fingerprint,
        title: str | None = None,
        copy: bool = False,
        any_model: bool = False,
    ) -> tuple[Session, bool]:
        """The session of a bundle, and whether it is new: one that is here stays as it is.

        of         the fingerprint of a ledger with these edits
        title      instead of its own
        copy       a session of its own even if it is here already, with other ids
        any_model  also where the model's name stands for another model here
        Raises SessionExists (it is here, and not all of the bundle is), OtherModel, BadBundle,
        CorruptTensors, StoreFull and others; then nothing was changed.
        """
        name = found.session.title if title is None else title
        from . import importing

        session_id, new = importing.add(
            self._db, self._blobs, found, name, copy=copy, any_model=any_model, of=of
        )
        return self._session(session_id), new

    # Finding

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Questions, answers and facts with every word of `text`; the last may be unfinished."""
        return search.search(self._db, text, limit)

    def input_history(self, limit: int = 1000) -> list[str]:
        """What was typed, in all sessions: newest first, each text once."""
        rows = self._db.rows(
            """SELECT text FROM message WHERE role = 'user'
            GROUP BY text ORDER BY max(node) DESC LIMIT :limit""",
            {"limit": limit},
        )
        return [row["text"] for row in rows]

    # Upkeep

    def check(self) -> list[str]:
        """What is wrong with the database or the tensor files, a line each; nothing if sound."""
        return upkeep.check(self._db, self._blobs)

    def sweep(self, min_age: float = _ORPHAN_AGE) -> list[Path]:
        """Remove tensor files that no edit names; returns them. min_age: seconds."""
        with self.atomic():  # no edit can be recorded meanwhile
            return upkeep.sweep(self._db, self._blobs, min_age)
