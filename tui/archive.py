"""The sessions on disk, read and kept in order beside the engine.

A thread and a connection of its own: the timeline opens at once while the model loads, answers
or edits. What concerns the session that is being recorded goes through the conversation instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import BadInput
from engine.events import Event
from engine.worker import Job, Worker

if TYPE_CHECKING:
    from sessions.rows import Hit, SessionRow
    from sessions.store import Store

    from .tree import Timeline

T = TypeVar("T")

FOUND = 200  # texts that a search gives


class Archive:
    """Jobs over the store in `home`. The thread is started by the first of them.

    on_event is called on that thread after each event of a job; it must only signal.
    """

    def __init__(self, home: Path, on_event: Callable[[Job[Any]], None] | None = None) -> None:
        self._home = home
        self._on_event = on_event
        self._worker: Worker | None = None
        self._store: Store | None = None

    def sessions(self) -> Job[list[SessionRow]]:
        """All sessions, last used first."""
        return self._submit("sessions", lambda store: store.sessions())

    def search(self, text: str) -> Job[list[Hit]]:
        """Questions, answers and facts with every word of `text`, in all sessions."""
        return self._submit("search", lambda store: store.search(text, FOUND))

    def timeline(self, session: str) -> Job[Timeline]:
        """A session's tree, laid out."""
        from .tree import read_timeline

        return self._submit("timeline", lambda store: read_timeline(store, session))

    def rename(self, session: str, title: str) -> Job[str]:
        """Give a session a title; ends with it."""
        return self._submit(
            "retitle", lambda store: store.rename_session(session, title.strip()).title
        )

    def delete(self, session: str) -> Job[str]:
        """Remove a session for good, with its files; ends with its id."""
        return self._submit("delete", lambda store: store.remove_sessions([session]).sessions[0].id)

    def export(self, session: str, path: Path) -> Job[Path]:
        """Write a session into a bundle; ends with its path. Raises BadInput, SessionError."""

        from sessions import bundle

        def work(store: Store) -> Path:
            target = path.expanduser()
            if target.suffix != bundle.SUFFIX:
                raise BadInput(
                    f"{target.name} is no name for a bundle.", f"End it in {bundle.SUFFIX}."
                )
            if target.exists():
                raise BadInput(f"{target} exists already.", "Choose another name.")
            bundle.write(store.recording(session), target)
            return target

        return self._submit("export", work)

    def close(self, timeout: float = 2.0) -> None:
        if self._worker is not None:
            self._worker.close(timeout)

    def _submit(self, kind: str, make: Callable[[Store], T]) -> Job[T]:
        if self._worker is None:
            self._worker = Worker(self._on_event, at_end=self._end)

        def run() -> Generator[Event, None, T]:
            yield from ()
            if self._store is None:
                from sessions.store import Store

                self._store = Store.open(self._home)
            return make(self._store)

        return self._worker.submit(kind, run)

    def _end(self) -> None:
        """The last act of the thread, to which the connection belongs."""
        if self._store is not None:
            self._store.close()
