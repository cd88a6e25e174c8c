"""Each failure is one sentence with a remedy, exit code 3, and changes nothing stored."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import (
    SessionError,
    Store,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnreadable,
)

if TYPE_CHECKING:
    from conftest import Scribe

NOBODY = 65534


def _contents(home: Path) -> dict[str, object]:
    """Everything stored: the rows of the database and the bytes of the files."""
    with closing(sqlite3.connect(home / "sessions.db")) as db:
        rows = list(db.iterdump())
    files = {p.name: p.read_bytes() for p in (home / "tensors").glob("*")}
    return {"rows": rows, "files": files}


def _one_sentence(error: SessionError, *parts: object) -> None:
    assert error.exit_code == 3
    assert "\n" not in error.message
    assert error.message.endswith(".")
    assert error.remedy
    assert str(error) == f"{error.message} {error.remedy}"
    for part in parts:
        assert str(part) in error.message


# What cannot be read


HEADER = b"SQLite format 3\0"


@pytest.mark.parametrize(
    "junk",
    [b"not a database" * 500, b"x", HEADER, HEADER + b"\0" * 84, HEADER + b"\1" * 5000],
    ids=["text", "one byte", "start of a header", "only a header", "spoiled header"],
)
def test_a_file_that_is_not_a_database(home: Path, junk: bytes) -> None:
    home.mkdir()
    path = home / "sessions.db"
    path.write_bytes(junk)
    with pytest.raises(StoreUnreadable) as caught:
        Store.open(home)
    _one_sentence(caught.value, path, "is not a database")
    assert path.read_bytes() == junk
    assert [p.name for p in home.iterdir()] == ["sessions.db"]


def test_a_truncated_database(scribe: Scribe, home: Path) -> None:
    _fill(scribe)
    path = home / "sessions.db"
    whole = path.read_bytes()
    for part in (len(whole) // 2, 4096 * 3, 5000):
        path.write_bytes(whole[:part])
        with pytest.raises(StoreUnreadable) as caught, Store.open(home) as store:
            store.sessions()
        _one_sentence(caught.value, path, "damaged")
        assert path.read_bytes() == whole[:part]


def test_a_database_with_overwritten_pages(scribe: Scribe, home: Path) -> None:
    session = _fill(scribe)
    path = home / "sessions.db"
    whole = path.read_bytes()
    spoiled = whole[: 4096 * 2] + b"\xff" * (len(whole) - 4096 * 2)
    path.write_bytes(spoiled)
    with pytest.raises(StoreUnreadable, match="damaged") as caught, Store.open(home) as store:
        store.conversation(session)
    _one_sentence(caught.value, path)
    assert path.read_bytes() == spoiled


def _fill(scribe: Scribe) -> str:
    session = scribe.session().id
    for i in range(200):
        scribe.store.add_message(session, "user", f"question {i} " * 30)
    scribe.store.close()
    return session


def test_another_programs_database(home: Path) -> None:
    home.mkdir()
    path = home / "sessions.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE session (id)")
    before = path.read_bytes()
    with pytest.raises(StoreUnreadable) as caught:
        Store.open(home)
    _one_sentence(caught.value, path, "belongs to another program")
    assert path.read_bytes() == before


def test_a_folder_in_its_place(home: Path) -> None:
    (home / "sessions.db").mkdir(parents=True)
    with pytest.raises(StoreUnreadable, match="is not a file"):
        Store.open(home)


# What cannot be written


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_home_that_cannot_be_made(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StoreReadOnly) as caught:
        Store.open(file / inside)
    _one_sentence(caught.value, file / inside)
    assert "LLM_EDIT_HOME" in caught.value.remedy
    assert file.read_text() == "mine"


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A home that anyone may enter (pytest's own folders are private to the user)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "home"
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def _unprivileged() -> Iterator[None]:
    """As a user whom permissions stop: root is stopped by none."""
    if sys.platform == "win32":
        pytest.skip("permissions of this kind are for POSIX systems")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _as_root_owned_by(path: Path) -> None:
    if os.geteuid() == 0:
        for each in [path, *path.rglob("*")]:
            os.chown(each, NOBODY, NOBODY)


def test_a_folder_in_which_nothing_may_be_made(guarded: Path) -> None:
    guarded.mkdir()
    guarded.chmod(0o555)
    for home in (guarded, guarded / "deeper"):
        with _unprivileged(), pytest.raises(StoreReadOnly) as caught:
            Store.open(home)
        _one_sentence(caught.value, home)
    assert list(guarded.iterdir()) == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_store(
    guarded: Path, what: str, make_scribe: Callable[[Store], Scribe]
) -> None:
    with Store.open(guarded) as store:
        make_scribe(store).session("kept")
    before = _contents(guarded)
    _as_root_owned_by(guarded)
    target = guarded / "sessions.db" if what == "file" else guarded
    target.chmod(0o444 if what == "file" else 0o555)
    with _unprivileged(), pytest.raises(StoreReadOnly) as caught:
        Store.open(guarded)
    _one_sentence(caught.value, guarded)
    target.chmod(0o755)
    assert _contents(guarded) == before


def test_tensors_that_may_not_be_written(
    guarded: Path, make_scribe: Callable[[Store], Scribe]
) -> None:
    with Store.open(guarded) as store:
        (guarded / "tensors").mkdir()
    _as_root_owned_by(guarded)
    (guarded / "tensors").chmod(0o555)
    with _unprivileged(), Store.open(guarded) as store:
        scribe = make_scribe(store)
        node = scribe.begin(scribe.session().id, "edit-one")
        with pytest.raises(StoreReadOnly, match="Permission denied") as caught:
            scribe.finish(node.id)
        _one_sentence(caught.value, guarded / "tensors")
        assert store.edit("edit-one").state == "running"


def test_a_database_turned_read_only_while_open(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    before = _contents(home)
    scribe.store._db.raw.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreReadOnly) as caught:
        scribe.store.add_message(session, "user", "?")
    _one_sentence(caught.value, home / "sessions.db", "is read-only")
    assert _contents(home) == before
    scribe.store._db.raw.execute("PRAGMA query_only = OFF")
    scribe.store.add_message(session, "user", "?")


# No space


@contextmanager
def _full(store: Store) -> Iterator[None]:
    """No page more than there are."""
    db = store._db.raw
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    limit = db.execute("PRAGMA max_page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    yield
    db.execute(f"PRAGMA max_page_count = {limit}").fetchone()


def test_no_space_for_a_message(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    before = _contents(home)
    with _full(scribe.store), pytest.raises(StoreFull) as caught:
        scribe.store.add_message(session, "user", "long " * 100_000)
    _one_sentence(caught.value, home / "sessions.db", "no space")
    assert _contents(home) == before
    scribe.store.add_message(session, "user", "long " * 100_000)
    assert len(scribe.store.conversation(session)) == 1


def test_no_space_for_an_outcome(scribe: Scribe, home: Path) -> None:
    """The file is written, the row is not: the edit runs on, and recording it can be repeated."""
    session = scribe.session().id
    node = scribe.begin(session, "edit-one")
    before = _contents(home)
    huge = {"rows": ["x" * 100] * 10_000}
    with _full(scribe.store), pytest.raises(StoreFull):
        scribe.finish(node.id, before=huge)
    after = _contents(home)
    assert after["rows"] == before["rows"]
    assert scribe.store.edit("edit-one").patches == ()
    assert len(scribe.store.sweep(min_age=0)) == 1
    assert _contents(home) == before
    assert scribe.finish(node.id, before=huge).before == huge
    assert scribe.store.check() == []


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_for_tensors(
    scribe: Scribe, home: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    node = scribe.begin(scribe.session().id, "edit-one")
    before = _contents(home)

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    target = {"write": "sessions.blobs._write_synced", "fsync": "os.fsync", "rename": "os.replace"}
    with monkeypatch.context() as patch:
        patch.setattr(target[call], full)
        with pytest.raises(StoreFull) as caught:
            scribe.finish(node.id)
    _one_sentence(caught.value, home / "tensors", "no space")
    assert _contents(home) == before, "neither a row, nor a file, nor half a file"
    assert scribe.finish(node.id).state == "done"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_kernels_own_no_space(tmp_path: Path) -> None:
    from sessions.errors import from_os

    with pytest.raises(OSError, match="No space") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert isinstance(from_os(caught.value, tmp_path), StoreFull)


def test_no_space_for_a_new_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sessions.database as module

    real = module._configure

    def small(raw: object, busy_timeout: float) -> None:
        real(raw, busy_timeout)  # type: ignore[arg-type]
        raw.execute("PRAGMA max_page_count = 3").fetchone()  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_configure", small)
        with pytest.raises(StoreFull):
            Store.open(home)
    with Store.open(home) as store:
        assert store.sessions() == []
        assert store.check() == []


# Others


def test_locked_for_too_long(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    before = _contents(home)
    with closing(sqlite3.connect(home / "sessions.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with Store.open(home, busy_timeout=0.05) as store:
            assert len(store.sessions()) == 1, "reading does not wait for a writer"
            with pytest.raises(StoreLocked) as caught:
                store.add_message(session, "user", "?")
            _one_sentence(caught.value, home / "sessions.db", "locked by another process")
        other.rollback()
    assert _contents(home) == before


def test_waiting_for_a_lock_that_is_given_up(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    with closing(sqlite3.connect(home / "sessions.db", check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.rollback)
        timer.start()
        scribe.store.add_message(session, "user", "?")
        timer.join()
    assert len(scribe.store.conversation(session)) == 1


def test_a_new_store_locked_for_too_long(home: Path) -> None:
    home.mkdir()
    with closing(sqlite3.connect(home / "sessions.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLocked):
            Store.open(home, busy_timeout=0.05)
    with Store.open(home) as store:
        assert store.sessions() == []


def test_a_store_is_for_one_thread(store: Store) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            store.sessions()
        except sqlite3.ProgrammingError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "thread" in str(caught[0])


def test_a_mistake_of_ours_is_not_dressed_up(scribe: Scribe) -> None:
    session = scribe.session().id
    scribe.begin(session, "edit-one")
    nodes = scribe.store.nodes(session)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        scribe.begin(session, "edit-one")
    assert scribe.store.nodes(session) == nodes


def test_an_interrupt_in_the_middle_leaves_nothing(
    scribe: Scribe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = scribe.session().id
    before = _contents(home)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sessions.tree.move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scribe.store.add_message(session, "user", "?")
    assert _contents(home) == before
    scribe.store.add_message(session, "user", "?")
