"""A session in a file: written, read without importing, the same again."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import BadBundle, Recording, Store, UnknownEdit, bundle

if TYPE_CHECKING:
    from conftest import Scribe


def lived_in(scribe: Scribe) -> str:
    """A session with everything: branches, marks, failures, forgotten messages, odd numbers."""
    store, session = scribe.store, scribe.session("lived in").id
    first = store.add_message(session, "user", "capital?\u2028 \x85")
    old = store.add_message(
        session, "assistant", "Sydney", tokens=3, seconds=0.5, stopped_by="length"
    )
    store.add_message(session, "user", "and then?", fresh=True)
    one = scribe.edit(session, "edit-one", first.id, tensors=b"one", ledger_hash="one")
    store.add_message(session, "assistant", "Canberra")
    scribe.edit(session, "edit-two", tensors=b"two", ledger_hash="two", success=False)
    store.add_mark(session, "undo", "edit-two", ledger_hash="one")
    store.add_message(session, "assistant", "again", parent=first.id)
    store.add_mark(session, "redo", "edit-two", parent=old.id, ledger_hash="two")
    store.fail_edit(scribe.begin(session, "edit-three").id, "failed", "diverged")
    store.add_mark(session, "drop", "edit-one", ledger_hash="three")
    store.forget(session, first.id)
    store.add_message(session, "user", "more?")
    note = {"v": 1, "job": "1", "seq": 0, "t": 0.25, "kind": "Note", "text": "a\u2028b"}
    store.add_events(session, one.node, "1", [note, note | {"p": {"float": "nan"}, "seq": 1}])
    store.add_events(session, None, "2", [note])
    return session


def same(found: Recording, wanted: Recording) -> None:
    """Equal, but for what belongs to one database; NaN counts as equal to itself."""
    for name in ("nodes", "messages", "states", "events"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.session.model.fingerprint == wanted.session.model.fingerprint
    for mine, theirs in zip(found.edits, wanted.edits, strict=True):
        assert repr(replace(mine, owner="")) == repr(replace(theirs, owner=""))
        if mine.tensors is not None:
            assert found.tensors(mine) == wanted.tensors(theirs)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "session.llmedit"


def test_a_bundle_says_what_the_store_says(scribe: Scribe, file: Path) -> None:
    wanted = scribe.store.recording(lived_in(scribe))
    bundle.write(wanted, file)
    found = bundle.read(file)
    same(found, wanted)
    for name in ("id", "title", "method", "tip", "created", "updated", "state"):
        assert getattr(found.session, name) == getattr(wanted.session, name)
    for name in ("name", "source", "dtype", "model_type", "info"):
        assert getattr(found.session.model, name) == getattr(wanted.session.model, name)
    tip = found.session.tip
    assert found.conversation(tip) == scribe.store.conversation(wanted.session.id)
    assert [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]


def test_it_holds_json_and_safetensors_with_checksums_and_nothing_else(
    scribe: Scribe, file: Path
) -> None:
    bundle.write(scribe.store.recording(lived_in(scribe)), file)
    with zipfile.ZipFile(file) as archive:
        names = sorted(archive.namelist())
        assert archive.testzip() is None
    tensors = [name for name in names if name.startswith("tensors/")]
    assert len(tensors) == 2
    assert names == ["events.jsonl", "manifest.json", "session.json", *tensors]


def test_the_same_session_gives_the_same_file(scribe: Scribe, file: Path) -> None:
    session = lived_in(scribe)
    bundle.write(scribe.store.recording(session), file)
    first = file.read_bytes()
    bundle.write(scribe.store.recording(session), file)
    assert file.read_bytes() == first


def test_an_edit_without_tensors_has_none(scribe: Scribe, file: Path) -> None:
    bundle.write(scribe.store.recording(lived_in(scribe)), file)
    found = bundle.read(file)
    with pytest.raises(UnknownEdit, match="edit-three has no tensors: it is failed"):
        found.tensors(found.edits[2])


def test_an_edit_that_runs_is_interrupted_in_the_bundle(scribe: Scribe, file: Path) -> None:
    session = scribe.session().id
    scribe.begin(session, "edit-one")
    bundle.write(scribe.store.recording(session), file)
    (edit,) = bundle.read(file).edits
    assert (edit.state, edit.owner) == ("interrupted", "")
    assert "exported while" in edit.error
    assert scribe.store.edit("edit-one").state == "running"


def test_an_empty_session(scribe: Scribe, file: Path) -> None:
    bundle.write(scribe.store.recording(scribe.session().id), file)
    found = bundle.read(file)
    assert (found.nodes, found.edits, found.events, found.session.tip) == ((), (), (), None)


def test_reading_a_bundle_needs_no_store_and_writes_nothing(scribe: Scribe, file: Path) -> None:
    bundle.write(scribe.store.recording(lived_in(scribe)), file)
    before = {p: p.stat().st_mtime_ns for p in file.parent.rglob("*")}
    found = bundle.read(file)
    assert found.tensors(found.edits[0]) == b"one"
    assert {p: p.stat().st_mtime_ns for p in file.parent.rglob("*")} == before


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"cannot be read \(No such file"):
        bundle.read(tmp_path / "nowhere.llmedit")


def test_a_tensor_file_that_is_damaged_stops_the_export(
    scribe: Scribe, store: Store, file: Path
) -> None:
    from sessions import CorruptTensors

    session = lived_in(scribe)
    path = next((store.home / "tensors").iterdir())
    path.write_bytes(b"o")
    file.write_bytes(b"an older export")
    with pytest.raises(CorruptTensors, match="is not what was stored"):
        bundle.write(store.recording(session), file)
    assert file.read_bytes() == b"an older export"
    assert [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]
