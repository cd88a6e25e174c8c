"""Models and sessions: made, named, listed, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessions import Store, UnknownSession

if TYPE_CHECKING:
    from conftest import Scribe


def test_a_model_is_known_by_name_fingerprint_and_dtype(store: Store) -> None:
    first = store.add_model("tiny", "hub", "f1", "float32", "llama", {"layers": 2})
    assert store.add_model("tiny", "folder", "f1", "float32", "llama", {"layers": 3}) == first
    others = [
        store.add_model("tiny", "hub", "f2", "float32"),
        store.add_model("tiny", "hub", "f1", "bfloat16"),
        store.add_model("other", "hub", "f1", "float32"),
    ]
    assert len({first, *others}) == 4
    session = store.create_session(first, method="rome")
    assert session.model.source == "folder"
    assert session.model.info == {"layers": 3}


def test_a_new_session_is_open_and_empty(scribe: Scribe) -> None:
    made = scribe.session("capitals")
    assert (made.title, made.tip, made.state, made.closed) == ("capitals", None, "open", None)
    assert made.method == "r-rome"
    assert scribe.store.session(made.id) == made
    assert scribe.store.path(made.id) == []
    assert scribe.store.conversation(made.id) == []
    assert scribe.store.active_edits(made.id) == []


def test_a_session_is_found_by_id_title_and_parts_of_its_id(scribe: Scribe) -> None:
    made = scribe.session("Capitals of Oceania")
    for ref in (made.id, made.id.lower(), "capitals of oceania", made.short, made.id[:24]):
        assert scribe.store.session(ref).id == made.id


@pytest.mark.parametrize("ref", ["", "x", "zz", "nothing like it"])
def test_an_unknown_session(scribe: Scribe, ref: str) -> None:
    scribe.session()
    with pytest.raises(UnknownSession, match="is not known") as caught:
        scribe.store.session(ref)
    assert caught.value.exit_code == 2


def test_near_misses_are_named(scribe: Scribe) -> None:
    scribe.session("capitals")
    scribe.session("rivers")
    with pytest.raises(UnknownSession, match=r"session 'capitols' is not known") as caught:
        scribe.store.session("capitols")
    assert caught.value.remedy == "Did you mean 'capitals'?"


def test_two_sessions_with_one_title_are_not_guessed_between(scribe: Scribe) -> None:
    ids = {scribe.session("capitals").id, scribe.session("capitals").id}
    with pytest.raises(UnknownSession, match="could be 2 things") as caught:
        scribe.store.session("capitals")
    assert all(i in caught.value.remedy for i in ids)
    for i in ids:
        assert scribe.store.session(i).id == i


def test_the_session_last_used_is_the_latest(scribe: Scribe) -> None:
    assert scribe.store.latest_session() is None
    first = scribe.session(model="one")
    second = scribe.session(model="two")
    assert scribe.store.latest_session() == second
    scribe.store.add_message(first.id, "user", "hello")
    found = scribe.store.latest_session()
    assert found is not None
    assert found.id == first.id
    found = scribe.store.latest_session("two")
    assert found is not None
    assert found.id == second.id
    assert scribe.store.latest_session("three") is None


def test_the_list_counts_what_is_on_the_way_to_the_tip(scribe: Scribe) -> None:
    first, second, empty = scribe.session("a"), scribe.session("b"), scribe.session("c")
    store = scribe.store
    question = store.add_message(first.id, "user", "?")
    store.add_message(first.id, "assistant", "wrong")
    scribe.edit(first.id, "edit-one", question.id)
    store.add_message(first.id, "assistant", "right")
    scribe.edit(second.id, "edit-two")
    scribe.edit(second.id, "edit-three")
    store.add_mark(second.id, "drop", "edit-two", ledger_hash="")
    rows = {row.id: row for row in store.sessions()}
    assert (rows[first.id].messages, rows[first.id].edits) == (2, 1)  # the old answer is elsewhere
    assert (rows[second.id].messages, rows[second.id].edits) == (0, 1)
    assert (rows[empty.id].messages, rows[empty.id].edits) == (0, 0)
    assert [row.title for row in store.sessions()] == ["b", "a", "c"]


def test_rename(scribe: Scribe) -> None:
    made = scribe.session("old")
    assert scribe.store.rename_session("old", "new").title == "new"
    assert scribe.store.session("new").id == made.id
    with pytest.raises(UnknownSession):
        scribe.store.rename_session("old", "x")


def test_delete_takes_everything_of_one_session_and_nothing_of_another(scribe: Scribe) -> None:
    """1200 messages: a cascade from parent to child would exceed SQLite's depth of 1000."""
    store = scribe.store
    kept, gone = scribe.session("kept"), scribe.session("gone")
    for session in (kept, gone):
        node = store.add_message(session.id, "user", f"tell me of {session.title} things")
        scribe.edit(session.id, f"edit-{session.title}", tensors=session.title.encode())
        store.add_mark(session.id, "undo", f"edit-{session.title}", ledger_hash="")
        store.add_events(session.id, node.id, "1", [{"kind": "Note", "seq": 0, "t": 0.0}])
    for i in range(1200):
        store.add_message(gone.id, "user", f"word{i}")
    removed = store.remove_sessions(["gone", gone.id])
    assert [session.id for session in removed.sessions] == [gone.id]
    assert (removed.files, removed.vacuumed) == (1, True)
    assert [s.id for s in store.sessions()] == [kept.id]
    assert store.search("gone") == []
    assert store.search("word7") == []
    assert len(store.search("kept")) == 1
    assert store.input_history() == ["tell me of kept things"]
    assert len(store.edits(kept.id)) == 1
    assert store.sweep(min_age=0) == []
    assert store.tensors(store.edit("edit-kept")) == b"kept"
    assert store.check() == []
