"""What can go wrong with stored sessions, in words.

SessionError             exit code 3: what is stored cannot be reached, or nothing more fits
├── StoreUnreadable      not a database, damaged, or another program's
├── StoreTooNew          written by a later version
├── StoreReadOnly        the folder or file cannot be written
├── StoreFull            no space
├── StoreLocked          another process held the database for too long
├── SessionBusy          another process makes an edit in it
├── SessionMoved         another process changed the edits of a session that is followed
├── CorruptTensors       an edit's tensor file is missing, short or altered
├── BadBundle            exit code 2: not a bundle, damaged, or more than is accepted
│   └── BundleTooNew     written by a later version
├── SessionExists        exit code 2: it is here already, and not the same
├── OtherModel           exit code 2: what the model's name stands for here is another model
└── UnknownReference     exit code 2: no such thing, or more than one
    ├── UnknownSession
    ├── UnknownNode
    └── UnknownEdit
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SessionError(Exception):
    """An error with a message for a person and, where there is one, a remedy."""

    exit_code = 3

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class StoreUnreadable(SessionError):
    """The database cannot be read."""


class StoreTooNew(SessionError):
    """The database has migrations that this version does not know."""


class StoreReadOnly(SessionError):
    """The home folder or the database cannot be written."""


class StoreFull(SessionError):
    """The disk, or the database's size limit, is full."""


class StoreLocked(SessionError):
    """Another process kept the database locked beyond the busy timeout."""


class CorruptTensors(SessionError):
    """An edit's tensor file is missing, or is not what was stored."""


class SessionBusy(SessionError):
    """A process is making an edit in the session."""


class SessionMoved(SessionError):
    """Another process has changed which edits are in force in a session that is followed."""


class SessionExists(SessionError):
    """The session that is to be imported is here already, and has taken another way."""

    exit_code = 2


class OtherModel(SessionError):
    """The session that is to be imported belongs to another model of the same name."""

    exit_code = 2


class BadBundle(SessionError):
    """A file that is to be read as a bundle and cannot be."""

    exit_code = 2


class BundleTooNew(BadBundle):
    """The bundle has a format that this version does not know."""


class UnknownReference(SessionError):
    """Nothing, or more than one thing, answers to this name."""

    exit_code = 2


class UnknownSession(UnknownReference):
    """No session, or several, with this id or title."""


class UnknownNode(UnknownReference):
    """No node with this id in the session."""


class UnknownEdit(UnknownReference):
    """No edit, or several, with this id; or one that cannot be used that way."""


_MOVE = "Move it aside to start afresh, or restore a copy of the whole folder."
_SPACE = "Nothing was changed. Free some space and try again."
_WRITE = "Give yourself write access, or set LLM_EDIT_HOME to another folder."
_DISK = "Check the disk it is on."
_WAIT = "Nothing was changed. Close the other one, or try again."

_SQLITE: dict[int, tuple[type[SessionError], str, str]] = {
    sqlite3.SQLITE_FULL: (StoreFull, "there is no space left for {path}.", _SPACE),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "{path} is read-only.", _WRITE),
    sqlite3.SQLITE_CANTOPEN: (StoreReadOnly, "{path} cannot be opened for writing.", _WRITE),
    sqlite3.SQLITE_CORRUPT: (StoreUnreadable, "{path} is damaged ({text}).", _MOVE),
    sqlite3.SQLITE_IOERR: (StoreUnreadable, "{path} cannot be read or written ({text}).", _DISK),
    sqlite3.SQLITE_BUSY: (StoreLocked, "{path} is locked by another process.", _WAIT),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "{path} is locked by another process.", _WAIT),
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's error code without the extended part; 0 for errors of the Python module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def from_sqlite(error: sqlite3.Error, path: Path) -> SessionError | None:
    """What `error` means for a person; None for a mistake of ours, which stays as it is."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return not_a_database(path)
    if (found := _SQLITE.get(code)) is None:
        return None
    kind, message, remedy = found
    return kind(message.format(path=path, text=error), remedy)


def not_a_database(path: Path) -> StoreUnreadable:
    return StoreUnreadable(f"{path} is not a database.", _MOVE)


def from_os(error: OSError, path: Path, remedy: str = _WRITE) -> SessionError:
    """What failing to write `path` means for a person.

    remedy: what helps when it is not for want of space.
    """
    if error.errno in _FULL:
        return StoreFull(f"there is no space left for {path}.", _SPACE)
    reason = error.strerror or type(error).__name__
    return StoreReadOnly(f"{path} cannot be written ({reason}).", remedy)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite about the database at `path` leave as SessionErrors."""
    try:
        yield
    except sqlite3.Error as error:
        known = from_sqlite(error, path)
        if known is None:
            raise
        raise known from error
