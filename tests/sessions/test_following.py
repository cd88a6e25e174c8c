"""Two llm-edits on one session: each keeps its place, and nothing is written on false grounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import Store
from sessions.errors import SessionMoved

if TYPE_CHECKING:
    from conftest import Scribe


@pytest.fixture
def other(home: Path, store: Store) -> Iterator[Store]:
    """Another process's store, as far as a store can tell."""
    with Store.open(home) as opened:
        yield opened


def _said(store: Store, session: str) -> list[str]:
    return [message.text for message in store.conversation(session)]


def test_what_others_say_meanwhile_is_a_branch_beside(scribe: Scribe, other: Store) -> None:
    store, session = scribe.store, scribe.session().id
    store.follow(session)
    store.add_message(session, "user", "mine?")
    assert not store.moved(session)
    theirs = other.add_message(session, "user", "theirs?")
    assert store.moved(session)
    assert _said(store, session) == ["mine?"], "it is read where this store stands, too"
    answer = store.add_message(session, "assistant", "yes")
    assert _said(store, session) == ["mine?", "yes"]
    assert answer.parent != theirs.id
    assert not store.moved(session), "who writes last moves the tip"
    assert _said(other, session) == ["mine?", "yes"]


def test_nothing_is_written_where_another_changed_the_edits(scribe: Scribe, other: Store) -> None:
    store, session = scribe.store, scribe.session().id
    store.follow(session)
    scribe.edit(session, "edit-one", ledger_hash="one")
    other.add_mark(session, "undo", "edit-one", ledger_hash="")
    nodes = len(store.nodes(session))
    writes: list[Callable[[], object]] = [
        lambda: store.add_message(session, "user", "?"),
        lambda: scribe.begin(session, "edit-two"),
        lambda: store.add_mark(session, "drop", "edit-one", ledger_hash=""),
    ]
    for write in writes:
        with pytest.raises(SessionMoved, match="another llm-edit has changed the edits"):
            write()
    assert len(store.nodes(session)) == nodes
    assert [e.id for e in store.active_edits(session)] == ["edit-one"], "as it stands here"
    store.follow(session)
    assert store.active_edits(session) == []
    store.add_message(session, "user", "?")


def test_an_edit_does_not_join_a_ledger_that_changed_while_it_was_made(
    scribe: Scribe, other: Store
) -> None:
    store, session = scribe.store, scribe.session().id
    scribe.edit(session, "edit-one", ledger_hash="one")
    store.follow(session)
    node = scribe.begin(session, "edit-two")
    other.add_mark(session, "undo", "edit-one", ledger_hash="")
    with pytest.raises(SessionMoved):
        scribe.finish(node.id, ledger_hash="one two")
    assert store.edit("edit-two").state == "running", "it can still be marked as failed"
    assert store.fail_edit(node.id, "failed", "moved").state == "failed"
    assert other.active_edits(session) == []


def test_who_does_not_follow_reads_the_tip_anew(scribe: Scribe, other: Store) -> None:
    store, session = scribe.store, scribe.session().id
    other.add_message(session, "user", "one?")
    store.add_message(session, "assistant", "1")
    other.add_message(session, "user", "two?")
    assert _said(store, session) == _said(other, session) == ["one?", "1", "two?"]


def test_a_transaction_that_fails_leaves_its_place_too(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    store.follow(session)
    store.add_message(session, "user", "one?")

    def interrupted() -> None:
        with store.atomic():
            store.add_message(session, "assistant", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not store.moved(session)
    assert _said(store, session) == ["one?"]
    store.add_message(session, "assistant", "one")
    assert _said(store, session) == ["one?", "one"]
