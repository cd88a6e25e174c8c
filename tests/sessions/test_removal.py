"""Removed for good: no row, no word in the index, no tensor file, no trace in the files."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import SessionBusy, Store, StoreFull, UnknownSession
from tests.sessions.bundles import contents

if TYPE_CHECKING:
    from conftest import Scribe

SECRET = "xylophonist"


def _traces(home: Path, word: str = SECRET) -> list[str]:
    """Files in which the word still stands, in whatever table or free page."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [path.name for path in files if word.encode() in path.read_bytes()]


def _secretive(scribe: Scribe, title: str, tensors: bytes) -> str:
    store, session = scribe.store, scribe.session(title).id
    question = store.add_message(session, "user", f"Who is the {SECRET}?")
    for i in range(200):
        store.add_message(session, "assistant", f"{SECRET} number{i} of many")
    edit = scribe.begin(session, f"edit-{title}", question.id, subject=f"the {SECRET}")
    scribe.finish(edit.id, tensors=tensors + SECRET.encode())
    note = {"kind": "Note", "seq": 0, "t": 0.0, "text": SECRET}
    store.add_events(session, edit.id, "1", [note])
    return session


def test_nothing_of_it_can_be_found_in_any_file(scribe: Scribe, store: Store) -> None:
    other = scribe.session("kept").id
    for i in range(50):  # words on either side of those that go
        store.add_message(other, "user", f"kept number{i}")
    session = _secretive(scribe, "gone", b"")
    store.rename_session(session, SECRET)
    assert _traces(store.home), "otherwise the test sees nothing"
    removed = store.remove_sessions([SECRET])
    assert (removed.files, removed.vacuumed) == (1, True)
    assert _traces(store.home) == []
    assert len(store.search("number7")) == 1
    assert len(store.conversation(other)) == 50
    assert store.check() == []


def test_files_that_others_use_stay(scribe: Scribe, store: Store) -> None:
    a = scribe.edit(scribe.session("a").id, "edit-a", tensors=b"shared")
    b = scribe.edit(scribe.session("b").id, "edit-b", tensors=b"shared")
    assert a.tensors == b.tensors
    assert store.remove_sessions(["a"]).files == 0
    assert store.tensors(b) == b"shared"
    assert store.remove_sessions(["b"]).files == 1
    assert list((store.home / "tensors").iterdir()) == []


def test_files_that_another_process_is_writing_stay(scribe: Scribe, store: Store) -> None:
    scribe.edit(scribe.session("a").id, "edit-a")
    half = store.home / "tensors" / ".01ABC.tmp"
    whole = store.home / "tensors" / f"{'0' * 64}.safetensors"
    for path in (half, whole):
        path.write_bytes(b"x")
    store.remove_sessions(["a"])
    assert sorted((store.home / "tensors").iterdir()) == sorted([half, whole])


def test_all_of_several_or_none(scribe: Scribe, store: Store) -> None:
    scribe.session("a")
    scribe.session("b")
    before = contents(store.home)
    with pytest.raises(UnknownSession, match="'lost' is not known"):
        store.remove_sessions(["a", "lost"])
    assert contents(store.home) == before
    removed = store.remove_sessions(["a", "b"])
    assert [session.title for session in removed.sessions] == ["a", "b"]
    assert store.sessions() == []


def test_a_session_in_which_an_edit_is_being_made_stays(scribe: Scribe, store: Store) -> None:
    scribe.begin(scribe.session("busy").id, "edit-one")
    scribe.session("idle")
    before = contents(store.home)
    with pytest.raises(SessionBusy, match="session busy is being edited by process") as caught:
        store.remove_sessions(["idle", "busy"])
    assert caught.value.exit_code == 3
    assert "Nothing was removed" in caught.value.remedy
    assert contents(store.home) == before


def test_an_edit_whose_process_is_gone_keeps_nobody(
    scribe: Scribe, store: Store, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    session = scribe.session("dead").id
    code = """
import sys
from pathlib import Path
from sessions import Store
with Store.open(Path(sys.argv[1])) as store:
    store.begin_edit(sys.argv[2], edit_id="killed", method="rome", hparams={}, request={})
"""
    assert spawn(code, store.home, session).wait() == 0
    assert store.edit("killed").state == "running"
    store.remove_sessions(["dead"])
    assert store.sessions() == []


def test_who_reads_at_the_same_time_only_delays_the_space(scribe: Scribe, store: Store) -> None:
    _secretive(scribe, "gone", b"")
    scribe.session("kept")
    with closing(sqlite3.connect(store.home / "sessions.db")) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM session").fetchone() == (2,)
        with Store.open(store.home, busy_timeout=0.05) as quick:
            assert not quick.remove_sessions(["gone"]).vacuumed
        assert other.execute("SELECT count(*) FROM session").fetchone() == (2,), "its snapshot"
    assert [s.title for s in store.sessions()] == ["kept"]
    store.remove_sessions(["kept"])
    assert _traces(store.home) == [], "the next removal makes up for it"


def test_no_space_to_remove_in(scribe: Scribe, store: Store) -> None:
    """A full disk has no room for the rows that change, nor for a second copy of the database."""
    session = _secretive(scribe, "gone", b"")
    before = contents(store.home)

    def full(*_: object) -> None:
        raise StoreFull("there is no space left for it.", "Free some.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store._db), "execute", full)
        with pytest.raises(StoreFull):
            store.remove_sessions([session])
    assert contents(store.home) == before
