"""One connection to the database: opening it with care, reading, transactions.

sqlite-utils makes and migrates the schema, and is imported for that alone: its import, which brings
numpy along, takes longer than reading a session of 500 messages.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from . import migrations
from .errors import (
    StoreReadOnly,
    StoreTooNew,
    StoreUnreadable,
    from_os,
    not_a_database,
    primary_code,
    translated,
)

Row = dict[str, Any]


class Connection:
    """A migrated database, for the thread that opened it (SQLite refuses others)."""

    def __init__(self, path: Path, raw: sqlite3.Connection) -> None:
        self.path = path
        self.raw = raw

    @classmethod
    def open(cls, path: Path, busy_timeout: float) -> Connection:
        """Create or open the database at `path`; waits `busy_timeout` seconds for its lock.

        Nothing is written before the file is known to be ours and of a known version.
        Raises StoreUnreadable, StoreTooNew, StoreReadOnly, StoreFull, StoreLocked.
        """
        _check_place(path)
        with translated(path):
            raw = sqlite3.connect(path, timeout=busy_timeout)
        try:
            with translated(path):
                _check_contents(path, raw)
                _configure(raw, busy_timeout)
                opened = cls(path, raw)
                opened._migrate()
        except BaseException:
            raw.close()
            raise
        return opened

    def _migrate(self) -> None:
        if not migrations.pending(self.raw):
            return
        with self.transaction():  # two processes may open a new home at the same time
            migrations.apply(self.raw)

    def close(self) -> None:
        self.raw.close()

    def rows(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """All rows of a query, as dicts."""
        with translated(self.path), closing(self.raw.execute(sql, params)) as cursor:
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state of the database, whatever others write meanwhile."""
        with translated(self.path):
            self.raw.execute("BEGIN")
            try:
                yield
            finally:
                self.raw.rollback()  # there is nothing to keep

    def row(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Row | None:
        """The first row, or None."""
        found = self.rows(sql, params)
        return found[0] if found else None

    def insert(self, table: str, values: Mapping[str, Any]) -> int:
        """Add one row; returns its rowid. Inside a transaction only."""
        return self.execute(_insert_sql(table, values), values)

    def insert_all(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows that have the same columns. Inside a transaction only."""
        for values in rows:
            self.insert(table, values)

    def update(self, table: str, key: str, value: Any, values: Mapping[str, Any]) -> None:
        """Set columns of the rows where `key` is `value`. Inside a transaction only."""
        columns = ", ".join(f"{name} = :{name}" for name in values)
        self.execute(
            f"UPDATE {table} SET {columns} WHERE {key} = :_value", {**values, "_value": value}
        )

    def execute(self, sql: str, params: Mapping[str, Any]) -> int:
        """Run one writing statement; returns the last inserted rowid."""
        assert self.raw.in_transaction, "writes belong inside transaction()"
        with closing(self.raw.execute(sql, params)) as cursor:
            return cursor.lastrowid or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested blocks are savepoints.

        The write lock is taken at the start. A deferred transaction that reads first and writes
        later fails at once, without waiting, when another process wrote in between.
        """
        with translated(self.path):
            if self.raw.in_transaction:
                with self._savepoint():
                    yield
                return
            self.raw.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.raw.commit()
            except BaseException:
                self.raw.rollback()
                raise

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        self.raw.execute("SAVEPOINT block")
        try:
            yield
        except BaseException:
            if self.raw.in_transaction:  # some errors have ended all of it already
                self.raw.execute("ROLLBACK TO block")
                self.raw.execute("RELEASE block")
            raise
        self.raw.execute("RELEASE block")


def _insert_sql(table: str, values: Mapping[str, Any]) -> str:
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    return f"INSERT INTO {table} ({names}) VALUES ({marks})"


def _check_place(path: Path) -> None:
    """The folder exists or is made, and an existing file is a file that can be written."""
    home = path.parent
    if home.exists() and not home.is_dir():
        raise StoreReadOnly(f"{home} is not a folder.", "Set LLM_EDIT_HOME to a folder.")
    try:
        home.mkdir(parents=True, exist_ok=True)
        exists, is_file = path.exists(), path.is_file()
        usable = not is_file or _may_be_sqlite(path)
    except OSError as error:
        raise from_os(error, home) from error
    if exists and not is_file:
        raise StoreUnreadable(f"{path} is not a file.", "Move it aside.")
    if not usable:
        raise not_a_database(path)
    effective = os.access in os.supports_effective_ids
    if exists and not os.access(path, os.W_OK, effective_ids=effective):
        raise from_os(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)


def _may_be_sqlite(path: Path) -> bool:
    """False for a file that SQLite would take for an empty database and write over.

    It does so below its smallest page of 512 bytes, whatever the file says; 0 bytes are empty.
    """
    size = path.stat().st_size
    return size == 0 or size >= 512


def _check_contents(path: Path, raw: sqlite3.Connection) -> None:
    """Refuse another program's database, and a later version of ours. Reads only."""
    application = raw.execute("PRAGMA application_id").fetchone()[0]
    blank = not raw.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != migrations.APPLICATION_ID and not (blank and application == 0):
        raise StoreUnreadable(f"{path} belongs to another program.", "Move it aside.")
    if later := migrations.unknown(raw):
        raise StoreTooNew(
            f"{path} has schema version {migrations.version(later)}; "
            f"this llm-edit knows up to version {migrations.latest()}.",
            "Update llm-edit, or set LLM_EDIT_HOME to another folder.",
        )


def _configure(raw: sqlite3.Connection, busy_timeout: float) -> None:
    """WAL: readers never wait for a writer. Foreign keys are off unless asked for."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # The change of mode does not wait for the lock by itself.
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA synchronous = NORMAL")
