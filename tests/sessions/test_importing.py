"""A bundle becomes a session: whole, once, and beside whatever has the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import (
    BadBundle,
    OtherModel,
    Recording,
    SessionExists,
    Store,
    StoreFull,
    bundle,
)
from tests.sessions.bundles import contents, of
from tests.sessions.test_bundle import lived_in, same

if TYPE_CHECKING:
    from conftest import Scribe


@pytest.fixture
def packed(tmp_path: Path, make_scribe: Callable[[Store], Scribe]) -> Recording:
    """A session of another machine, read from its bundle."""
    with Store.open(tmp_path / "other") as store:
        session = lived_in(make_scribe(store))
        bundle.write(store.recording(session), tmp_path / "session.llmedit")
    return bundle.read(tmp_path / "session.llmedit")


def test_what_was_exported_is_what_is_imported(store: Store, packed: Recording) -> None:
    session, new = store.add_recording(packed, of=of)
    assert new
    found = store.recording(session.id)
    same(found, packed)
    own = replace(packed.session, model=session.model)
    assert session == own, "id, title, times, tip and state are kept"
    assert replace(session.model, id=0) == packed.session.model
    assert store.check() == []
    assert {hit.kind for hit in store.search("capital")} == {"question", "fact"}
    assert [m.text for m in store.conversation(session.id)] == ["more?"]
    assert store.interrupted() == []
    node = store.add_message(session.id, "assistant", "and it goes on")
    assert store.path(session.id)[-1] == node


def test_imported_twice_it_is_here_once(store: Store, packed: Recording) -> None:
    first, _ = store.add_recording(packed, of=of)
    store.add_message(first.id, "user", "said since")
    before = contents(store.home)
    again, new = store.add_recording(packed, title="other", of=of)
    assert not new
    assert again == store.session(first.id)
    assert contents(store.home) == before


def test_a_session_that_went_another_way_is_not_mixed(
    store: Store, scribe: Scribe, tmp_path: Path
) -> None:
    session = lived_in(scribe)
    older = store.session(session).tip
    store.add_message(session, "user", "only in the bundle")
    bundle.write(store.recording(session), tmp_path / "a.llmedit")
    newer = bundle.read(tmp_path / "a.llmedit")
    with store._db.transaction():
        store._db.update("session", "id", session, {"tip": None})
        last = {"id": newer.nodes[-1].id}
        store._db.execute("DELETE FROM node WHERE id = :id", last)
    assert older is not None
    store.move_tip(session, older)
    before = contents(store.home)
    with pytest.raises(SessionExists) as caught:
        store.add_recording(newer, of=of)
    assert caught.value.message == (
        "session lived in is here already, without a step of the bundle."
    )
    assert "--copy" in caught.value.remedy
    assert caught.value.exit_code == 2
    assert contents(store.home) == before
    copied, new = store.add_recording(newer, copy=True, of=of)
    assert new
    assert copied.id != session


def test_a_copy_has_names_of_its_own_and_the_fingerprints_that_follow(
    store: Store, tmp_path: Path, make_scribe: Callable[[Store], Scribe]
) -> None:
    scribe = make_scribe(store)
    session = scribe.session("a").id
    question = store.add_message(session, "user", "?")
    one = scribe.edit(session, "e" * 16, question.id)
    two = scribe.edit(session, "f" * 16, edit={"id": "f" * 16, "supersedes": ["e" * 16]})
    with store._db.transaction():
        for edit, active in ((one, [one]), (two, [one, two])):
            store._db.update("node", "id", edit.node, {"ledger_hash": of(active)})
    store.add_mark(session, "undo", two.id, ledger_hash=of([one]))
    planned = {"kind": "EditPlanned", "seq": 0, "t": 0.0, "edit": two.id, "ledger": of([one, two])}
    store.add_events(session, two.node, "1", [planned])
    bundle.write(store.recording(session), tmp_path / "a.llmedit")
    for _ in range(2):
        copy, new = store.add_recording(
            bundle.read(tmp_path / "a.llmedit"), title="b", copy=True, of=of
        )
        assert new
        found, origin = store.recording(copy.id), store.recording(session)
        ids = {copy.id, *(n.id for n in found.nodes), *(e.id for e in found.edits)}
        assert ids.isdisjoint(
            {session, *(n.id for n in origin.nodes), *(e.id for e in origin.edits)}
        )
        first, second = found.edits
        assert [len(e.id) for e in found.edits] == [16, 16]
        assert second.body == {"id": second.id, "supersedes": [first.id]}
        assert store.superseded(copy.id, second.node) == {first.id: second.id}
        assert [n.ledger_hash for n in found.path(copy.tip)] == [
            "", of([first]), of([first, second]), of([first]),
        ]  # fmt: skip
        assert found.events[0].event["edit"] == second.id
        assert found.events[0].event["ledger"] == of([first, second])
        assert [e.id for e in store.active_edits(copy.id)] == [first.id]
        assert [n.kind for n in found.nodes] == [n.kind for n in origin.nodes]
        assert store.tensors(first) == b"tensors"
    assert [s.title for s in store.sessions()].count("b") == 2
    assert len(list((store.home / "tensors").iterdir())) == 1, "the same tensors are one file"
    assert store.check() == []


def test_ids_that_another_session_has_are_changed(store: Store, packed: Recording) -> None:
    first, _ = store.add_recording(packed, of=of)
    session = replace(packed.session, id="01ANOTHER")
    nodes = tuple(replace(node, session=session.id) for node in packed.nodes)
    edits = tuple(replace(edit, session=session.id) for edit in packed.edits)
    other = replace(packed, session=session, nodes=nodes, edits=edits)
    second, new = store.add_recording(other, of=of)
    assert new
    mine, theirs = store.recording(first.id), store.recording(second.id)
    assert {n.id for n in mine.nodes}.isdisjoint({n.id for n in theirs.nodes})
    assert [m.text for m in theirs.messages.values()] == [m.text for m in mine.messages.values()]
    assert store.check() == []


def test_what_is_known_of_a_model_is_not_changed_by_a_bundle(
    store: Store, packed: Recording
) -> None:
    store.add_model("tiny", "my own folder", "f" * 64, "float32", info={"layers": 2})
    session, _ = store.add_recording(packed, of=of)
    assert session.model.source == "my own folder"
    assert session.model.info == {"layers": 2}


def test_another_model_of_the_same_name_is_said(store: Store, packed: Recording) -> None:
    store.add_model("tiny", "my own folder", "a" * 64, "float32")
    before = contents(store.home)
    with pytest.raises(
        OtherModel, match=r"another tiny \(fingerprint f{12}\) than .* \(a{12}\)"
    ) as caught:
        store.add_recording(packed, of=of)
    assert caught.value.exit_code == 2
    assert "--any-model" in caught.value.remedy
    assert contents(store.home) == before
    session, new = store.add_recording(packed, of=of, any_model=True)
    assert new
    assert session.model.fingerprint == "f" * 64, "it stays that of the model it belongs to"


def test_one_of_several_models_of_the_name_will_do(store: Store, packed: Recording) -> None:
    for digit in "af":
        store.add_model("tiny", "my own folder", digit * 64, "bfloat16")
    assert store.add_recording(packed, of=of)[1]


def test_a_conversation_without_edits_fits_every_model(store: Store, packed: Recording) -> None:
    store.add_model("tiny", "my own folder", "a" * 64, "float32")
    said = {n.id for n in packed.nodes if n.kind == "message"}
    first = next(n for n in packed.nodes if n.id in said)
    talk = replace(
        packed,
        session=replace(packed.session, tip=first.id),
        nodes=(first,),
        messages={first.id: packed.messages[first.id]},
        edits=(),
        events=(),
    )
    assert store.add_recording(talk, of=of)[1]


def test_a_wrong_checksum_found_late_leaves_nothing(
    store: Store, packed: Recording, tmp_path: Path
) -> None:
    """The first tensor file is whole, the second is not."""
    path = tmp_path / "session.llmedit"
    data = path.read_bytes()
    assert data.count(b"two") == 1
    path.write_bytes(data.replace(b"two", b"twO"))
    before = contents(store.home)
    with pytest.raises(BadBundle) as caught:
        store.add_recording(packed, of=of)
    assert str(path) in caught.value.message
    assert contents(store.home) == before


def test_a_full_disk_leaves_nothing(
    store: Store, packed: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store.home)
    db = store._db.raw
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    limit = db.execute("PRAGMA max_page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    huge = replace(packed, events=packed.events * 20_000)
    with pytest.raises(StoreFull, match="no space left"):
        store.add_recording(huge, of=of)
    db.execute(f"PRAGMA max_page_count = {limit}").fetchone()
    assert contents(store.home) == before
    assert store.add_recording(packed, of=of)[1]


def test_an_import_that_fails_leaves_the_files_that_others_use(
    store: Store, packed: Recording, make_scribe: Callable[[Store], Scribe]
) -> None:
    scribe = make_scribe(store)
    mine = scribe.edit(scribe.session().id, "edit-mine", tensors=b"one")

    def interrupt(_: object) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_recording(packed, copy=True, of=interrupt)
    assert store.tensors(mine) == b"one"
    assert len(list((store.home / "tensors").iterdir())) == 1
    assert len(store.sessions()) == 1
