"""Real processes: killed in the middle, and two at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions import PatchRecord, Store

Spawn = Callable[..., subprocess.Popen[str]]

_HEAD = """
import os, signal, sys, time
from pathlib import Path
from sessions import PatchRecord, Store
home = Path(sys.argv[1])
store = Store.open(home)

def begin(session, edit):
    return store.begin_edit(session, edit_id=edit, method="rome", hparams={},
        request={"prompt": "p", "target_new": "t"}).id

def finish(node, tensors):
    store.finish_edit(node, patches=[PatchRecord(kind="LowRank", site="x")], tensors=tensors,
        edit={}, before={}, after={}, success=True, verdict="", metrics={}, seconds={},
        peak_memory=0, versions={}, ledger_hash="h")

def tell(*words):
    print(*words, flush=True)
"""

_EDITING = (
    _HEAD
    + """
session = store.create_session(store.add_model("tiny", "here", "f", "fp32"), method="rome").id
store.add_message(session, "user", "capital?")
store.add_message(session, "assistant", "Canberra")
begin(session, "edit-one")
tell(session)
time.sleep(60)
"""
)

_DYING_BETWEEN_FILE_AND_ROW = (
    _HEAD
    + """
from sessions.blobs import Blobs
real = Blobs.write
def write_and_die(self, data):
    real(self, data)
    os.kill(os.getpid(), signal.SIGKILL)
Blobs.write = write_and_die
session = store.create_session(store.add_model("tiny", "here", "f", "fp32"), method="rome").id
finish(begin(session, "edit-one"), b"tensors")
"""
)

_BUSY = (
    _HEAD
    + """
session, name, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
tell("ready")
sys.stdin.readline()
for i in range(count):
    tell("message", store.add_message(session, "user", f"{name} says {i}").id)
    if i % 5 == 0:
        edit = f"edit-{name}-{i:05d}"
        node = begin(session, edit)
        finish(node, edit.encode())
        store.add_events(session, node, "1", [{"kind": "Note", "seq": 0, "t": 0.0}])
        tell("edit", edit)
store.close()
"""
)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.communicate()[1]
    return line


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _new_session(store: Store, title: str) -> str:
    model = store.add_model("tiny", "here", "f", "fp32")
    return store.create_session(model, method="rome", title=title).id


def test_killed_during_an_edit(home: Path, spawn: Spawn) -> None:
    process = spawn(_EDITING, home)
    session = _line(process)
    with Store.open(home) as store:
        assert store.interrupted() == [], "it still runs"
        process.kill()
        process.wait()
        (found,) = store.interrupted()
        assert (found.id, found.session, found.state) == ("edit-one", session, "interrupted")
        assert store.interrupted() == [], "said once"
    with Store.open(home) as store:
        assert store.edit("edit-one").state == "interrupted"
        assert [m.text for m in store.conversation(session)] == ["capital?", "Canberra"]
        assert store.active_edits(session) == []
        assert store.check() == []
        store.add_message(session, "user", "and on it goes")


def test_killed_between_file_and_row(home: Path, spawn: Spawn) -> None:
    process = spawn(_DYING_BETWEEN_FILE_AND_ROW, home)
    assert process.wait() == -9, process.communicate()[1]
    with Store.open(home) as store:
        assert [e.id for e in store.interrupted()] == ["edit-one"]
        assert store.edit("edit-one").tensors is None
        assert store.check() == []
        assert len(list((home / "tensors").iterdir())) == 1
        assert len(store.sweep(min_age=0)) == 1
        assert list((home / "tensors").iterdir()) == []


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.25])
def test_killed_at_any_time_loses_nothing_that_was_recorded(
    home: Path, spawn: Spawn, delay: float
) -> None:
    with Store.open(home) as store:
        session = _new_session(store, "s")
    process = spawn(_BUSY, home, session, "a", 100_000)
    assert _line(process) == "ready"
    _go(process)
    time.sleep(delay)
    process.kill()
    told = [line.split() for line in process.communicate()[0].splitlines()]
    with Store.open(home) as store:
        nodes = {node.id for node in store.path(session)}
        active = {edit.id for edit in store.active_edits(session)}
        complete = [words for words in told if len(words) == 2]
        assert {i for kind, i in complete[:-1] if kind == "message"} <= nodes
        assert {i for kind, i in complete[:-1] if kind == "edit"} <= active
        assert all(store.tensors(e) == e.id.encode() for e in store.active_edits(session))
        assert {e.state for e in store.edits(session)} <= {"done", "running"}
        assert len(store.interrupted()) <= 1
        assert store.check() == []


@pytest.mark.parametrize("same", [False, True])
def test_two_processes_at_once(home: Path, spawn: Spawn, same: bool) -> None:
    count = 60
    with Store.open(home) as store:
        first = _new_session(store, "first")
        second = first if same else _new_session(store, "second")
    processes = [spawn(_BUSY, home, first, "a", count), spawn(_BUSY, home, second, "b", count)]
    for process in processes:
        assert _line(process) == "ready"
    for process in processes:
        _go(process)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with Store.open(home) as store:
        assert store.check() == []
        for session, names in ({first: "ab"} if same else {first: "a", second: "b"}).items():
            texts = {hit.text for hit in store.search("says", limit=1000) if hit.session == session}
            assert texts == {f"{name} says {i}" for name in names for i in range(count)}
            for name in names:
                said = [n.id for n in store.nodes(session)]
                assert said == sorted(said) or len(names) > 1
                done = [e.id for e in store.edits(session) if f"-{name}-" in e.id]
                assert done == [f"edit-{name}-{i:05d}" for i in range(0, count, 5)]
            assert all(e.state == "done" for e in store.edits(session))
            assert all(store.tensors(e) == e.id.encode() for e in store.edits(session))
            if not same:
                assert len(store.conversation(session)) == count
                assert len(store.active_edits(session)) == count // 5


def test_many_processes_open_a_new_home_at_once(home: Path, spawn: Spawn) -> None:
    code = """
import sys
from pathlib import Path
from sessions import Store
print("ready", flush=True)
sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    store.add_model(sys.argv[2], "", "", "")
"""
    processes = [spawn(code, home, i) for i in range(4)]
    for process in processes:
        assert _line(process) == "ready"
    for process in processes:
        _go(process)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with Store.open(home) as store:
        names = store._db.rows("SELECT name FROM model ORDER BY name")
        assert [row["name"] for row in names] == ["0", "1", "2", "3"]
        assert len(store._db.rows("SELECT * FROM _sqlite_migrations")) == 1


def test_two_processes_tell_of_an_interrupted_edit_once(home: Path, spawn: Spawn) -> None:
    process = spawn(_EDITING, home)
    _line(process)
    process.kill()
    process.wait()
    code = _HEAD + "sys.stdin.readline()\ntell(len(store.interrupted()))\nstore.close()"
    others = [spawn(code, home) for _ in range(3)]
    for other in others:
        _go(other)
    assert sorted(_line(other) for other in others) == ["0", "0", "1"]


def test_patch_records_need_names() -> None:
    with pytest.raises(TypeError):
        PatchRecord("LowRank", "x")  # type: ignore[misc]
