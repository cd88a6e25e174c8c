"""A session to read: all of it is there, and none of it is markup."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sessions import plainform
from sessions.codec import dumps, loads
from sessions.markdown import to_markdown
from tests.sessions.test_bundle import lived_in

if TYPE_CHECKING:
    from conftest import Scribe


def test_the_conversation_and_the_corrections(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session("*capitals*").id
    question = store.add_message(session, "user", "Capital of Australia?")
    store.add_message(session, "assistant", "Sydney", stopped_by="length")
    scribe.edit(session, "edit-one", question.id)
    store.add_message(session, "assistant", "Melbourne")
    scribe.edit(session, "edit-two", edit={"supersedes": ["edit-one"]}, success=False)
    store.fail_edit(scribe.begin(session, "edit-three").id, "failed", "diverged")
    text = to_markdown(store.recording(session))
    head, conversation, corrections = text.split("\n## ")
    assert head.startswith("# \\*capitals\\*\n")
    assert "fingerprint `fff" in head
    assert "**Question**\n\n```text\nCapital of Australia?\n```" in conversation
    assert "**Answer (after edit 1)**\n\n```text\nMelbourne\n```" in conversation
    assert "Sydney" not in conversation, "the answer that the correction left"
    assert "### 1. r\\-rome, took, superseded by 2" in corrections
    assert "### 2. r\\-rome, did not take, in force" in corrections
    assert "### 3. r\\-rome, failed" in corrections
    assert "target_new: Melbourne" in corrections
    assert "diverged" in corrections
    assert "- said: 0 → 1 (n = 1)" in corrections
    store.add_mark(session, "undo", "edit-two", ledger_hash="x")
    text = to_markdown(store.recording(session))
    assert "### 1. r\\-rome, took, in force" in text
    assert "### 2. r\\-rome, did not take, not in force" in text


def test_what_was_typed_is_no_markup(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session("<b>\n# x").id
    typed = "# no heading\n```\nout of the block\n````text\n[a](http://b)"
    store.add_message(session, "user", typed)
    text = to_markdown(store.recording(session))
    assert text.startswith("# \\<b\\> \\# x\n")
    assert f"\n`````text\n{typed}\n`````\n" in text


def test_an_empty_session(scribe: Scribe) -> None:
    text = to_markdown(scribe.store.recording(scribe.session().id))
    assert text.endswith("## Conversation\n\nNothing was said.\n")


def test_as_one_object_it_is_json_and_nothing_is_left_out(scribe: Scribe) -> None:
    session = lived_in(scribe)
    found = scribe.store.recording(session)
    text = dumps(plainform.whole(found))
    assert "NaN" not in text
    json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    read = loads(text)
    events = read.pop("events")
    assert len(events) == len(found.events)
    assert {node["id"] for node in read["nodes"]} == {node.id for node in found.nodes}
    assert [edit["state"] for edit in read["edits"]] == ["done", "done", "failed"]
