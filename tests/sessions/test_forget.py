"""Messages that are left out of the conversation, and taken back in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessions import Store, UnknownNode, UnknownSession

if TYPE_CHECKING:
    from conftest import Scribe


def _said(store: Store, session: str) -> list[str]:
    texts = [message.text for message in store.conversation(session)]
    recording = store.recording(session)
    tip = recording.session.tip
    assert [m.text for m in recording.conversation(tip)] == texts, "both ways of reading agree"
    return texts


def _talk(store: Store, session: str, *texts: str) -> list[str]:
    roles = ("user", "assistant")
    return [store.add_message(session, roles[i % 2], text).id for i, text in enumerate(texts)]


def test_a_question_takes_its_answer_along_and_comes_back_with_it(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    forget = store.forget(session, nodes[0])
    assert (forget.kind, forget.detail, forget.target) == ("forget", {"message": nodes[0]}, None)
    assert store.session(session).tip == forget.id
    assert _said(store, session) == ["two?", "2"]
    assert store.forgotten(session) == (nodes[0],)
    assert [n.id for n in store.path(session)] == [*nodes, forget.id], "nothing was removed"
    remember = store.remember(session, nodes[0])
    assert remember.kind == "remember"
    assert _said(store, session) == ["one?", "1", "two?", "2"]
    assert store.forgotten(session) == ()


def test_an_answer_can_be_forgotten_without_its_question(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    store.forget(session, nodes[1])
    assert _said(store, session) == ["one?", "two?", "2"]


def test_what_was_before_a_fresh_question_does_not_come_back_when_it_goes(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    _talk(store, session, "one?", "1")
    fresh = store.add_message(session, "user", "fresh?", fresh=True)
    _talk(store, session, "three?", "3")
    assert [m.fresh for m in store.conversation(session)] == [False, False, True, False, False]
    store.forget(session, fresh.id)
    assert [(m.text, m.fresh) for m in store.conversation(session)] == [
        ("one?", False), ("1", False), ("three?", True), ("3", False),
    ]  # fmt: skip


def test_it_stays_forgotten_on_a_branch_and_through_undo(scribe: Scribe) -> None:
    """A correction branches at a question before the forget node, and undo goes back there."""
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    store.forget(session, nodes[0])
    edit = scribe.edit(session, "edit-one", nodes[2], ledger_hash="h")
    store.add_message(session, "assistant", "II", parent=edit.node)
    assert _said(store, session) == ["two?", "II"]
    assert [e.id for e in store.active_edits(session)] == ["edit-one"]
    store.add_mark(session, "undo", "edit-one", parent=nodes[3], ledger_hash="")
    assert _said(store, session) == ["two?", "2"]
    assert [e.id for e in store.undone_edits(session)] == ["edit-one"]
    store.remember(session, nodes[0])
    assert _said(store, session) == ["one?", "1", "two?", "2"]
    assert [e.id for e in store.undone_edits(session)] == ["edit-one"], "redo is still there"


def test_moving_the_tip_to_before_takes_it_back_in(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    store.forget(session, nodes[0])
    store.move_tip(session, nodes[3])
    assert _said(store, session) == ["one?", "1", "two?", "2"]


def test_forgetting_leaves_the_edits_and_their_fingerprint_alone(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1")
    scribe.edit(session, "edit-one", ledger_hash="h")
    assert store.forget(session, nodes[0]).ledger_hash == "h"
    assert [e.id for e in store.active_edits(session)] == ["edit-one"]
    assert len(store.search("one")) == 1, "the record still has it; rm is for removing"


def test_the_list_counts_what_is_remembered(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    store.forget(session, nodes[0])
    assert [row.messages for row in store.sessions()] == [2]


def test_what_cannot_be_forgotten(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    nodes = _talk(store, session, "one?", "1", "two?", "2")
    elsewhere = store.add_message(session, "assistant", "I", parent=nodes[0])
    store.forget(session, nodes[0])
    before = store.nodes(session)
    mark = before[-1].id
    for wrong in ("nothing", nodes[0], elsewhere.id, nodes[2], mark):
        with pytest.raises(UnknownNode, match="is no message of the conversation"):
            store.forget(session, wrong)
    for wrong in ("nothing", nodes[2], mark):
        with pytest.raises(UnknownNode, match="is no message that was forgotten"):
            store.remember(session, wrong)
    with pytest.raises(UnknownSession):
        store.forget("nowhere", nodes[0])
    assert store.nodes(session) == before
