"""Messages, marks and tips. (test_fold.py holds the store against a model.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions import Store, UnknownEdit, UnknownNode, UnknownSession

if TYPE_CHECKING:
    from conftest import Scribe


def _active(store: Store, session: str) -> list[str]:
    return [edit.id for edit in store.active_edits(session)]


def test_messages_form_a_path(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    first = store.add_message(session, "user", "Hello", ledger_hash="")
    second = store.add_message(
        session, "assistant", "Hi", tokens=3, seconds=0.5, stopped_by="stop", fresh=True
    )
    assert (first.kind, first.parent, second.parent) == ("message", None, first.id)
    assert store.path(session) == [first, second]
    assert store.session(session).tip == second.id
    said, answered = store.conversation(session)
    assert (said.node, said.role, said.text, said.fresh) == (first.id, "user", "Hello", False)
    assert (answered.tokens, answered.seconds, answered.stopped_by) == (3, 0.5, "stop")
    assert answered.fresh is True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text())
def test_any_text_comes_back(scribe: Scribe, text: str) -> None:
    session = scribe.session().id
    scribe.store.add_message(session, "user", text)
    assert scribe.store.conversation(session)[0].text == text


def test_correction_and_undo_as_the_assistant_does_it(scribe: Scribe) -> None:
    """The edit branches at the question; undo goes back to the old answer."""
    store, session = scribe.store, scribe.session().id
    question = store.add_message(session, "user", "capital?")
    old = store.add_message(session, "assistant", "Canberra")
    edit = scribe.begin(session, "edit-one", question.id)
    assert store.session(session).tip == old.id, "the intent does not move the tip"
    scribe.finish(edit.id, ledger_hash="one")
    store.add_message(session, "assistant", "Melbourne", parent=edit.id)
    assert [m.text for m in store.conversation(session)] == ["capital?", "Melbourne"]
    assert [n.ledger_hash for n in store.path(session)] == ["", "one", "one"]
    assert _active(store, session) == ["edit-one"]

    undo = store.add_mark(session, "undo", "edit-one", parent=old.id, ledger_hash="")
    assert undo.parent == old.id
    assert undo.target == "edit-one"
    assert [m.text for m in store.conversation(session)] == ["capital?", "Canberra"]
    assert _active(store, session) == []
    store.add_message(session, "user", "and now?")
    store.add_mark(session, "redo", "edit-one", ledger_hash="one")
    assert _active(store, session) == ["edit-one"]
    kinds = [n.kind for n in store.path(session)]
    assert kinds == ["message", "message", "undo", "message", "redo"]
    assert len(store.nodes(session)) == 7  # nothing was lost: the branch with Melbourne is there


def test_a_correction_of_an_earlier_question_keeps_the_later_edits(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    first = store.add_message(session, "user", "one?")
    store.add_message(session, "assistant", "1")
    second = store.add_message(session, "user", "two?")
    scribe.edit(session, "edit-two", second.id, ledger_hash="2")
    store.add_message(session, "assistant", "II")
    scribe.edit(session, "edit-one", first.id, ledger_hash="21")
    store.add_message(session, "assistant", "I")
    assert [m.text for m in store.conversation(session)] == ["one?", "I"]
    assert _active(store, session) == ["edit-two", "edit-one"]
    path = store.path(session)
    assert [n.kind for n in path] == ["message", "carry", "edit", "message"]
    assert [n.ledger_hash for n in path] == ["", "2", "21", "21"]


def test_a_dropped_edit_does_not_come_back_on_a_branch(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    scribe.edit(session, "edit-one")
    question = store.add_message(session, "user", "?")
    store.add_message(session, "assistant", "!")
    store.add_mark(session, "drop", "edit-one", ledger_hash="")
    store.add_message(session, "assistant", "again", parent=question.id)
    assert _active(store, session) == []


def test_no_carry_where_the_path_says_the_same(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    scribe.edit(session, "edit-one")
    question = store.add_message(session, "user", "?")
    store.add_message(session, "assistant", "!")
    retried = store.add_message(session, "assistant", "again", parent=question.id)
    assert retried.parent == question.id


def test_moving_the_tip_takes_the_edits_active_there(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    start = store.add_message(session, "user", "?")
    scribe.edit(session, "edit-one")
    store.move_tip(session, start.id)
    assert _active(store, session) == []
    assert store.session(session).tip == start.id
    assert [e.id for e in store.active_edits(session, store.nodes(session)[-1].id)] == ["edit-one"]


def test_unknown_things(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    other = scribe.session().id
    elsewhere = store.add_message(other, "user", "?")
    scribe.edit(other, "edit-other")
    running = scribe.begin(session, "edit-running")
    nodes = store.nodes(session)
    with pytest.raises(UnknownSession, match="there is no session nothing"):
        store.add_message("nothing", "user", "?")
    for wrong in ("nothing", elsewhere.id):
        with pytest.raises(UnknownNode, match=f"has no node {wrong}"):
            store.add_message(session, "user", "?", parent=wrong)
        with pytest.raises(UnknownNode):
            store.move_tip(session, wrong)
        with pytest.raises(UnknownNode):
            store.path(session, wrong)
    with pytest.raises(UnknownEdit, match="edit-nothing"):
        store.add_mark(session, "undo", "edit-nothing", ledger_hash="")
    for unfit in ("edit-other", "edit-running"):
        with pytest.raises(UnknownEdit, match=f"edit {unfit} is"):
            store.add_mark(session, "undo", unfit, ledger_hash="")
    with pytest.raises(ValueError, match="undo, redo, drop"):
        store.add_mark(session, "forget", "edit-other", ledger_hash="")
    for reader in (store.path, store.conversation, store.nodes, store.edits, store.events):
        with pytest.raises(UnknownSession):
            reader("nothing")
    assert store.nodes(session) == nodes
    assert running.kind == "edit"


def test_five_hundred_messages_are_read_in_a_few_queries(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, session = scribe.store, scribe.session().id
    for i in range(250):
        store.add_message(session, "user", f"question {i} " * 20)
        store.add_message(session, "assistant", f"answer {i} " * 40)
    asked: list[str] = []
    with monkeypatch.context() as patch:
        rows = store._db.rows
        patch.setattr(store._db, "rows", lambda sql, *a: (asked.append(sql), rows(sql, *a))[1])
        nodes, messages = store.path(session), store.conversation(session)
    assert len(nodes) == len(messages) == 500
    assert [m.text for m in messages[:2]] == ["question 0 " * 20, "answer 0 " * 40]
    assert 2 <= len(asked) < 10
