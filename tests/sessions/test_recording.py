"""A session read whole: the same tree, states and events that the store tells piece by piece."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sessions import Store, UnknownSession

if TYPE_CHECKING:
    from conftest import Scribe

Spawn = Callable[..., subprocess.Popen[str]]


def _lived_in(scribe: Scribe) -> str:
    """A session with a correction of an earlier question, an undo, a redo and a branch."""
    store, session = scribe.store, scribe.session("lived in").id
    first = store.add_message(session, "user", "capital?")
    old = store.add_message(session, "assistant", "Sydney")
    store.add_message(session, "user", "and then?")
    scribe.edit(session, "edit-one", first.id, ledger_hash="one")
    store.add_message(session, "assistant", "Canberra")
    scribe.edit(session, "edit-two", ledger_hash="two")
    store.add_mark(session, "undo", "edit-two", ledger_hash="one")
    store.add_message(session, "assistant", "again", parent=first.id)  # needs a carry node
    store.add_mark(session, "redo", "edit-two", parent=old.id, ledger_hash="two")
    failed = scribe.begin(session, "edit-three")
    store.fail_edit(failed.id, "failed", "diverged")
    store.add_mark(session, "drop", "edit-one", ledger_hash="three")
    return session


def test_it_says_what_the_store_says(scribe: Scribe) -> None:
    store, session = scribe.store, _lived_in(scribe)
    found = store.recording("lived in")
    assert found.session == store.session(session)
    assert list(found.nodes) == store.nodes(session)
    assert list(found.edits) == store.edits(session)
    assert any(node.kind == "carry" for node in found.nodes), "or states are not put to a test"
    for node in found.nodes:
        assert found.path(node.id) == store.path(session, node.id)
        spoken = [found.messages[n.id] for n in found.path(node.id) if n.id in found.messages]
        assert spoken == store.conversation(session, node.id)
        state = found.states[node.id]
        assert list(state.active) == [e.id for e in store.active_edits(session, node.id)]
        assert list(state.undone) == [e.id for e in store.undone_edits(session, node.id)]


def test_events_come_with_their_job_and_node_in_the_order_they_were_told(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    node = store.add_message(session, "user", "hello").id
    told = [{"seq": i, "t": i / 2, "kind": "Note", "text": str(i)} for i in range(3)]
    store.add_events(session, node, "ask-1", told[:2])
    store.add_events(session, None, "ask-2", told[2:])
    events = store.recording(session).events
    assert [(e.node, e.job, e.event) for e in events] == [
        (node, "ask-1", told[0]), (node, "ask-1", told[1]), (None, "ask-2", told[2]),
    ]  # fmt: skip


def test_an_edit_whose_process_was_killed_is_interrupted_before_anyone_was_told(
    scribe: Scribe, spawn: Spawn
) -> None:
    session = scribe.session().id
    code = """
import sys
from pathlib import Path
from sessions import Store
with Store.open(Path(sys.argv[1])) as store:
    store.begin_edit(sys.argv[2], edit_id="killed", method="rome", hparams={}, request={})
"""
    assert spawn(code, scribe.store.home, session).wait() == 0
    assert scribe.store.edit("killed").state == "running"
    (edit,) = scribe.store.recording(session).edits
    assert edit.state == "interrupted"
    assert [e.id for e in scribe.store.interrupted()] == ["killed"], "it is still told once"


def test_an_edit_that_runs_now_is_running(scribe: Scribe) -> None:
    session = scribe.session().id
    scribe.begin(session, "now")
    assert [e.state for e in scribe.store.recording(session).edits] == ["running"]


def test_an_unknown_session(store: Store) -> None:
    with pytest.raises(UnknownSession, match="'nowhere' is not known"):
        store.recording("nowhere")
