"""Every field of a bundle's JSON is looked at before any of it is taken over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions import Store, bundle
from tests.sessions.bundles import Members, Refused, of, pack, session_with


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("session.json", b"{", "is damaged"),
        ("session.json", b"\xff\xfe", "is damaged"),
        ("session.json", b"[]", "the session: 'it' is not an object."),
        ("session.json", b'{"a": 1}', "the session has the unknown field 'a'."),
        ("session.json", b"[" * 100_000, "nested too deep"),
        ("session.json", b'{"session": ' + b"9" * 5000 + b"}", "is damaged"),
        ("events.jsonl", b"{}\n", "event 0 has no field 'node'."),
        ("events.jsonl", b"{", "is damaged"),
        ("events.jsonl", b'{"node": null, "job": "1", "event": {}}', "event 0 has no 'kind'."),
        ("events.jsonl", b'{"node": null, "job": "1", "event": {"kind": "A", "seq": 1, "t": NaN}}',
         "event 0: 't' is not a finite number."),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_json_that_is_not_ours(
    good: Members, file: Path, refused: Refused, name: str, text: bytes, part: str
) -> None:
    pack(file, {**good, name: text})
    refused(part)


def _set(*way: Any, to: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for step in way[:-1]:
            tree = tree[step]
        tree[way[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_set("novelty", to=1), "the session has the unknown field 'novelty'."),
        (_set("edits", 0, "novelty", to=1), "edit 0 has the unknown field 'novelty'."),
        (lambda t: t["session"].pop("title"), "the session has no field 'title'."),
        (_set("session", "title", to=3), "the session: 'title' is not a text."),
        (_set("session", "id", to="a/b"), "'a/b' cannot be a session's id."),
        (_set("session", "tip", to="gone"), "the session stands at gone, which is not there."),
        (_set("session", "model", "fingerprint", to=None), "'fingerprint' is not a text."),
        (_set("nodes", 1, "parent", to="gone"), "hangs under gone, which is not before it."),
        (lambda t: t["nodes"][0].update(parent=t["nodes"][1]["id"]), "which is not before it."),
        (lambda t: t["nodes"][1].update(id=t["nodes"][0]["id"]), "edit 0 is about node"),
        (_set("nodes", 0, "kind", to="novelty"), "is of unknown kind 'novelty'."),
        (_set("nodes", 2, "target", to="gone"), "is about edit gone, not there."),
        (_set("nodes", 0, "target", to="edit-one"), "is about an edit and should not be."),
        (_set("nodes", 0, "detail", to={"a": 1}), "has unknown fields."),
        (_set("messages", to=[]), "nodes and messages do not match."),
        (lambda t: t["messages"].append(t["messages"][0]), "two messages share one node."),
        (_set("messages", 0, "role", to="tool"), "has the unknown role 'tool'."),
        (_set("messages", 0, "tokens", to=1 << 70), "'tokens' is not a whole number."),
        (_set("messages", 0, "tokens", to=True), "'tokens' is not a whole number."),
        (_set("messages", 0, "seconds", to={"float": "nan"}), "'seconds' is not a finite number."),
        (_set("edits", to=[]), "is about edit edit-one, not there."),
        (_set("edits", 0, "state", to="running"), "is in the unknown state 'running'."),
        (_set("edits", 0, "tensors", to=None), "edit edit-one is done: its tensors."),
        (_set("edits", 0, "tensors", to="../x"), "edit edit-one names no tensor file."),
        (_set("edits", 0, "success", to=1), "'success' is not true or false or null."),
        (_set("edits", 0, "request", to={"requests": [1]}), "are not a list of objects."),
        (_set("edits", 0, "patches", 0, "rank", to=1.5), "'rank' is not a whole number."),
        (lambda t: t["edits"][0]["metrics"].append(t["edits"][0]["metrics"][0]), "a metric twice"),
        (_set("edits", 0, "seconds", to={"total": "1"}), "'total' is not a number."),
    ],
)  # fmt: skip
def test_every_field_is_looked_at(
    good: Members, file: Path, refused: Refused, change: Callable[[Any], object], part: str
) -> None:
    pack(file, session_with(good, change))
    refused(part)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"novelty": 1}, "its manifest has the unknown field 'novelty'."),
        ({"version": "1"}, "its version is '1', which is none."),
        ({"version": 0}, "its version is 0, which is none."),
        ({"files": []}, "its manifest lists no files."),
        ({"files": {"session.json": 1}}, "the manifest's entry 'session.json' is not an object."),
        ({"files": {"session.json": {"size": 1}}}, "has no field 'sha256'."),
    ],
)
def test_the_manifest_is_looked_at(
    good: Members, file: Path, refused: Refused, changes: dict[str, Any], part: str
) -> None:
    pack(file, good, **changes)
    refused(part)


def test_carried_and_forgotten_things_must_be_there(
    good: Members, file: Path, refused: Refused
) -> None:
    for kind, detail, part in (
        ("carry", {"active": ["gone"], "undone": []}, "carries 'gone', which is not there."),
        ("carry", {"active": [[]], "undone": []}, "carries [], which is not there."),
        ("carry", {"novelty": []}, "has the unknown field 'novelty'."),
        ("forget", {"message": "gone"}, "is about message 'gone', which is not there."),
        ("remember", {}, "is about message None, which is not there."),
    ):
        node = {"kind": kind, "detail": detail, "target": None}
        pack(file, session_with(good, lambda tree, node=node: tree["nodes"][2].update(node)))
        refused(part)


@pytest.mark.parametrize("depth", [101, 300, 900])
def test_nested_not_too_deep_for_json_but_for_us(
    good: Members, file: Path, refused: Refused, depth: int
) -> None:
    deep = json.loads('{"a":' * depth + "1" + "}" * depth)
    pack(file, session_with(good, _set("edits", 0, "body", to=deep)))
    refused("it is nested too deep.")


def test_lone_surrogates_do_not_stop_an_import(good: Members, file: Path, store: Store) -> None:
    pack(file, session_with(good, _set("messages", 0, "text", to="caf\udce9")))
    session, _ = store.add_recording(bundle.read(file), copy=True, of=of)
    assert [m.text for m in store.messages(session.id)] == ["caf?"]
