"""A recording as JSON objects and back. Whatever is not ours is refused, with its place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .codec import clean
from .errors import BadBundle
from .recording import Chunks, Recording, states
from .rows import (
    EditRow,
    JsonDict,
    Message,
    MetricRecord,
    ModelRow,
    Node,
    PatchRecord,
    Session,
    Told,
)

TEXT, FLAG, OBJECT, LIST = "a text", "true or false", "an object", "a list"
WHOLE, NUMBER, FINITE = "a whole number", "a number", "a finite number"
_OR_NULL = " or null"

_MODEL = {"name": TEXT, "source": TEXT, "fingerprint": TEXT, "dtype": TEXT, "model_type": TEXT,
          "info": OBJECT}  # fmt: skip
_SESSION = {
    "id": TEXT, "title": TEXT, "method": TEXT, "tip": TEXT + _OR_NULL, "created": TEXT,
    "updated": TEXT, "closed": TEXT + _OR_NULL, "state": TEXT, "model": OBJECT,
}  # fmt: skip
_NODE = {
    "id": TEXT, "parent": TEXT + _OR_NULL, "kind": TEXT, "target": TEXT + _OR_NULL,
    "ledger_hash": TEXT, "created": TEXT, "detail": OBJECT,
}  # fmt: skip
_MESSAGE = {
    "node": TEXT, "role": TEXT, "text": TEXT, "tokens": WHOLE, "seconds": FINITE,
    "stopped_by": TEXT, "fresh": FLAG,
}  # fmt: skip
_EDIT = {
    "id": TEXT, "node": TEXT, "method": TEXT, "hparams": OBJECT, "request": OBJECT, "state": TEXT,
    "error": TEXT, "seed": WHOLE, "device": TEXT, "finished": TEXT + _OR_NULL, "seconds": OBJECT,
    "peak_memory": WHOLE, "success": FLAG + _OR_NULL, "verdict": TEXT, "before": OBJECT,
    "after": OBJECT, "versions": OBJECT, "body": OBJECT, "tensors": TEXT + _OR_NULL,
    "metrics": LIST, "patches": LIST,
}  # fmt: skip
_METRIC = {"name": TEXT, "before": NUMBER, "after": NUMBER, "n": WHOLE, "detail": OBJECT}
_PATCH = {"kind": TEXT, "site": TEXT, "rank": WHOLE, "norm_ratio": NUMBER}
_TOLD = {"node": TEXT + _OR_NULL, "job": TEXT, "event": OBJECT}
_EVENT = {"kind": TEXT, "seq": WHOLE, "t": FINITE}  # and whatever its kind has
_TREE = {"session": OBJECT, "nodes": LIST, "messages": LIST, "edits": LIST}
_CARRY = {"active": LIST, "undone": LIST, "forgotten": LIST}

ABOUT_EDITS = ("edit", "undo", "redo", "drop")
ABOUT_MESSAGES = ("forget", "remember")
_KINDS = ("message", "carry", *ABOUT_EDITS, *ABOUT_MESSAGES)
_ROLES = ("system", "user", "assistant")
_ENDED = ("done", "failed", "cancelled", "interrupted")
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFT = "the session was exported while this edit was being made."


def to_plain(recording: Recording) -> JsonDict:
    """Session, tree, messages and edits; the events are apart. JSON-safe but for NaN."""
    session = recording.session
    return {
        "session": _picked(session, _SESSION) | {"model": _picked(session.model, _MODEL)},
        "nodes": [_picked(node, _NODE) for node in recording.nodes],
        "messages": [_picked(message, _MESSAGE) for message in recording.messages.values()],
        "edits": [_edit(edit) for edit in recording.edits],
    }


def whole(recording: Recording) -> JsonDict:
    """A session as one object, events and all; only the tensor files are named, not there."""
    return to_plain(recording) | {"events": [told_to_plain(told) for told in recording.events]}


def told_to_plain(told: Told) -> JsonDict:
    return _picked(told, _TOLD)


def _picked(row: object, fields: Mapping[str, str]) -> JsonDict:
    return {name: getattr(row, name) for name in fields}


def _edit(edit: EditRow) -> JsonDict:
    found = _picked(edit, _EDIT) | {
        "metrics": [_picked(metric, _METRIC) for metric in edit.metrics],
        "patches": [_picked(patch, _PATCH) for patch in edit.patches],
    }
    if edit.state == "running":  # no other machine can wait for it
        found |= {"state": "interrupted", "error": _LEFT}
    return found


def from_plain(tree: Any, log: Iterable[Any], chunks: Chunks) -> Recording:
    """What `to_plain` and `told_to_plain` gave, once JSON has been read.

    Everything that points at something points at what is there. Raises BadBundle, without the
    name of the file.
    """
    parts = _fields(tree, "the session", _TREE)
    about = _fields(parts["session"], "the session", _SESSION)
    model = ModelRow(id=0, **_fields(about.pop("model"), "the model", _MODEL))
    session = Session(**about, model=model)
    nodes = tuple(
        Node(**_fields(value, f"node {i}", _NODE), session=session.id)
        for i, value in enumerate(parts["nodes"])
    )
    made = {node.id: node.created for node in nodes}
    said = [_message(v, f"message {i}", made) for i, v in enumerate(parts["messages"])]
    _require(len({m.node for m in said}) == len(said), "two messages share one node")
    by_id = {node.id: node for node in nodes}
    edits = tuple(_edit_row(v, f"edit {i}", by_id) for i, v in enumerate(parts["edits"]))
    events = tuple(_told(value, f"event {i}") for i, value in enumerate(log))
    done = {edit.id for edit in edits if edit.state == "done"}
    found = Recording(
        session=session,
        nodes=nodes,
        messages={message.node: message for message in said},
        edits=edits,
        states={},
        events=events,
        chunks=chunks,
    )
    _check(found)
    return replace(found, states=states(nodes, done))


def _message(value: Any, place: str, made: Mapping[str, str]) -> Message:
    found = _fields(value, place, _MESSAGE)
    return Message(**found, created=made.get(found["node"], ""))


def _edit_row(value: Any, place: str, nodes: Mapping[str, Node]) -> EditRow:
    found = _fields(value, place, _EDIT)
    _require(found["node"] in nodes, f"{place} is about node {found['node']}, which is not there")
    node = nodes[found["node"]]
    found["metrics"] = tuple(
        MetricRecord(**_fields(m, f"a metric of {place}", _METRIC)) for m in found["metrics"]
    )
    found["patches"] = tuple(
        PatchRecord(**_fields(p, f"a patch of {place}", _PATCH)) for p in found["patches"]
    )
    batch = found["request"].get("requests", [])
    right = isinstance(batch, list) and all(isinstance(each, dict) for each in batch)
    _require(right, f"the requests of {place} are not a list of objects")
    for name, seconds in found["seconds"].items():
        _kind(seconds, f"seconds of {place}", name, NUMBER)
    return EditRow(
        **found,
        session=node.session,
        owner="",
        created=node.created,
        ledger_hash=node.ledger_hash,
    )


def _told(value: Any, place: str) -> Told:
    found = _fields(value, place, _TOLD)
    for name, kind in _EVENT.items():
        _require(name in found["event"], f"{place} has no {name!r}")
        _kind(found["event"][name], place, name, kind)
    return Told(**found)


# What points at what


def _check(found: Recording) -> None:
    """Raises BadBundle for a recording that no store could have given."""
    _ids("a session's", [found.session.id])
    _ids("a node's", [node.id for node in found.nodes])
    _ids("an edit's", [edit.id for edit in found.edits])
    kinds: dict[str, str] = {}
    edits = {edit.id: edit for edit in found.edits}
    for node in found.nodes:
        _require(node.kind in _KINDS, f"node {node.id} is of unknown kind {node.kind!r}")
        above = node.parent is None or node.parent in kinds
        _require(above, f"node {node.id} hangs under {node.parent}, which is not before it")
        _pointers(node, edits, kinds)
        kinds[node.id] = node.kind
    tip = found.session.tip
    _require(tip is None or tip in kinds, f"the session stands at {tip}, which is not there")
    _messages(found, kinds)
    for edit in found.edits:
        _outcome(edit, kinds)
    _require(
        len({edit.node for edit in found.edits}) == len(found.edits), "two edits share one node"
    )
    own = {node.target for node in found.nodes if node.kind == "edit"}
    _require(own == set(edits), "nodes and edits do not match")
    for told in found.events:
        there = told.node is None or told.node in kinds
        _require(there, f"an event belongs to node {told.node}, which is not there")


def _pointers(node: Node, edits: Mapping[str, EditRow], before: Mapping[str, str]) -> None:
    """A node's target and detail."""
    if node.kind in ABOUT_EDITS:
        _require(node.target in edits, f"node {node.id} is about edit {node.target}, not there")
        if node.kind == "edit":
            own = edits[node.target or ""].node == node.id
            _require(own, f"node {node.id} is not the one of its edit")
    else:
        _require(node.target is None, f"node {node.id} is about an edit and should not be")
    if node.kind == "carry":
        unknown = node.detail.keys() - _CARRY.keys()
        _require(not unknown, f"node {node.id} has the unknown field {min(unknown, default='')!r}")
        for name, ids in node.detail.items():
            _kind(ids, f"node {node.id}", name, LIST)
            known = before if name == "forgotten" else edits
            for i in ids:
                there = isinstance(i, str) and i in known
                _require(there, f"node {node.id} carries {i!r}, which is not there")
    elif node.kind in ABOUT_MESSAGES:
        about = node.detail.get("message")
        there = isinstance(about, str) and before.get(about) == "message"
        _require(there, f"node {node.id} is about message {about!r}, which is not there")
        _require(len(node.detail) == 1, f"node {node.id} has unknown fields")
    else:
        _require(not node.detail, f"node {node.id} has unknown fields")


def _messages(found: Recording, kinds: Mapping[str, str]) -> None:
    expected = {i for i, kind in kinds.items() if kind == "message"}
    _require(found.messages.keys() == expected, "nodes and messages do not match")
    for message in found.messages.values():
        known = message.role in _ROLES
        _require(known, f"message {message.node} has the unknown role {message.role!r}")


def _outcome(edit: EditRow, kinds: Mapping[str, str]) -> None:
    _require(kinds.get(edit.node) == "edit", f"edit {edit.id} is of a node that is no edit")
    _require(edit.state in _ENDED, f"edit {edit.id} is in the unknown state {edit.state!r}")
    names = [metric.name for metric in edit.metrics]
    _require(len(names) == len(set(names)), f"edit {edit.id} has a metric twice")
    done = edit.state == "done"
    _require((edit.tensors is not None) == done, f"edit {edit.id} is {edit.state}: its tensors")
    if edit.tensors is not None:
        named = _DIGEST.fullmatch(edit.tensors)
        _require(named is not None, f"edit {edit.id} names no tensor file")


def _ids(whose: str, ids: list[str]) -> None:
    for i in ids:
        _require(_ID.fullmatch(i) is not None, f"{i[:80]!r} cannot be {whose} id")
    _require(len(ids) == len(set(ids)), f"{whose} id occurs twice")


# Fields


def _fields(value: Any, place: str, fields: Mapping[str, str]) -> JsonDict:
    """The object's fields, each of its kind. Raises BadBundle."""
    _kind(value, place, "it", OBJECT)
    for name in value:
        _require(name in fields, f"{place} has the unknown field {name[:80]!r}")
    for name, kind in fields.items():
        _require(name in value, f"{place} has no field {name!r}")
        _kind(value[name], place, name, kind)
    return {name: clean(v) if isinstance(v, str) else v for name, v in value.items()}


def _kind(value: Any, place: str, name: str, kind: str) -> None:
    if value is None and kind.endswith(_OR_NULL):
        return
    plain = kind.removesuffix(_OR_NULL)
    if plain == FLAG:
        right = isinstance(value, bool)
    elif plain == WHOLE:  # SQLite keeps 64 bits
        right = type(value) is int and -(1 << 63) <= value < 1 << 63
    elif plain in (NUMBER, FINITE):
        right = type(value) in (int, float) and (plain == NUMBER or math.isfinite(value))
    else:
        right = isinstance(value, {TEXT: str, OBJECT: dict, LIST: list}[plain])
    _require(right, f"{place}: {name!r} is not {kind}")


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise BadBundle(f"{otherwise}.")
