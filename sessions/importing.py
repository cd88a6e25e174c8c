"""A recording that came in a bundle, made a session of the store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from . import catalog, edits
from .blobs import Blobs
from .codec import clean, dumps
from .database import Connection
from .errors import OtherModel, SessionExists
from .ids import new_ulid
from .recording import Recording, states
from .rows import EditRow, Node, Told

Fingerprint = Callable[[Sequence[EditRow]], str]
Found = tuple[str, bool]  # id of the session, and whether it is new


def add(
    db: Connection,
    blobs: Blobs,
    found: Recording,
    title: str,
    *,
    copy: bool,
    any_model: bool,
    of: Fingerprint,
) -> Found:
    """Tensor files first, then every row in one transaction; what fails leaves nothing.

    of: the fingerprint of a ledger, needed where edits must have other ids.
    Raises SessionExists, OtherModel, and what reading and writing raise.
    """
    if not copy and _is_here(db, found):
        return found.session.id, False
    if not any_model:
        _require_model(db, found)
    before = {digest for digest in _digests(found) if blobs.path(digest).exists()}
    sizes: dict[str, int] = {}
    try:
        for digest in _digests(found):
            sizes[digest] = blobs.copy(digest, found.chunks(digest))
        with db.transaction():
            if not copy and _is_here(db, found):  # another process was quicker
                return found.session.id, False
            for digest, size in sizes.items():
                if not blobs.has(digest, size):  # swept away as an orphan meanwhile
                    blobs.copy(digest, found.chunks(digest))
            fresh = _renamed(found, of) if copy or _clashes(db, found) else found
            _insert(db, fresh, title, sizes)
            return fresh.session.id, True
    except BaseException:
        with suppress(Exception), db.transaction():  # the first error is the one to tell
            blobs.discard(set(sizes) - before - edits.named(db))
        raise


def _digests(found: Recording) -> list[str]:
    return list(dict.fromkeys(e.tensors for e in found.edits if e.tensors is not None))


def _is_here(db: Connection, found: Recording) -> bool:
    """Whether the store has this very session. Raises SessionExists if it has less of it."""
    session = found.session.id
    row = db.row("SELECT title FROM session WHERE id = ?", (session,))
    if row is None:
        return False
    known = {r["id"] for r in db.rows("SELECT id FROM node WHERE session = ?", (session,))}
    missing = sum(1 for node in found.nodes if node.id not in known)
    if missing:
        steps = "a step" if missing == 1 else f"{missing} steps"
        raise SessionExists(
            f"session {row['title'] or session} is here already, without {steps} of the bundle.",
            "Nothing was changed; --copy imports the bundle as a session of its own.",
        )
    return True


def _require_model(db: Connection, found: Recording) -> None:
    """Raises OtherModel where the model's name stands for others only. Unknown names pass.

    A session opened later is held against the model itself; this is said while the bundle is
    at hand.
    """
    model = found.session.model
    known = catalog.fingerprints(db, model.name, model.info.get("load_in", ""))
    if known and model.fingerprint not in known and found.edits:
        raise OtherModel(
            f"the session was made with another {model.name} (fingerprint "
            f"{model.fingerprint[:12]}) than the one used here ({known[-1][:12]}): its edits do "
            "not fit.",
            "Nothing was changed; --any-model imports it to be read, replayed, or exported as "
            "facts.",
        )


def _clashes(db: Connection, found: Recording) -> bool:
    """Whether another session has one of the ids: possible with bundles made by hand."""
    for table, ids in (
        ("node", [n.id for n in found.nodes]),
        ("edit", [e.id for e in found.edits]),
    ):
        inside = f"SELECT id FROM {table} WHERE id IN (SELECT value FROM json_each(?)) LIMIT 1"
        if db.row(inside, (dumps(ids),)) is not None:
            return True
    return False


# Another session of the same content


def _renamed(found: Recording, of: Fingerprint) -> Recording:
    """The same with ids of its own everywhere, and the ledger's fingerprints that follow."""
    names = {found.session.id: new_ulid()}
    names |= {node.id: new_ulid() for node in found.nodes}
    names |= {edit.id: secrets.token_hex(8) for edit in found.edits}
    rows = {edit.id: edit for edit in found.edits}
    fresh = {i: replace(edit, id=names[i]) for i, edit in rows.items()}
    for ids in {state.active for state in found.states.values()}:
        names[of([rows[i] for i in ids])] = of([fresh[i] for i in ids])
    nodes = tuple(_node(node, names) for node in found.nodes)
    done = {names[edit.id] for edit in found.edits if edit.state == "done"}
    messages = [replace(m, node=names[m.node]) for m in found.messages.values()]
    return replace(
        found,
        session=replace(found.session, **_swapped(vars(found.session), names, "id", "tip")),
        nodes=nodes,
        messages={message.node: message for message in messages},
        edits=tuple(_edit(edit, names) for edit in found.edits),
        states=states(nodes, done),
        events=tuple(_told(told, names) for told in found.events),
    )


def _node(node: Node, names: Mapping[str, str]) -> Node:
    plain = _swapped(vars(node), names, "id", "session", "parent", "target", "ledger_hash")
    return replace(node, **plain, detail=_everywhere(node.detail, names))


def _edit(edit: EditRow, names: Mapping[str, str]) -> EditRow:
    plain = _swapped(vars(edit), names, "id", "node", "session", "ledger_hash")
    return replace(edit, **plain, body=_everywhere(edit.body, names))


def _told(told: Told, names: Mapping[str, str]) -> Told:
    node = names[told.node] if told.node else None
    return replace(told, node=node, event=_everywhere(told.event, names))


def _swapped(row: Mapping[str, Any], names: Mapping[str, str], *fields: str) -> dict[str, Any]:
    return {field: names.get(row[field], row[field]) for field in fields}


def _everywhere(value: Any, names: Mapping[str, str]) -> Any:
    """JSON with every text that is an old name replaced; ids are long enough to be no words."""
    if isinstance(value, dict):
        return {key: _everywhere(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_everywhere(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) and value else value


# Rows


def _insert(db: Connection, found: Recording, title: str, sizes: Mapping[str, int]) -> None:
    """Inside a transaction only."""
    session = found.session
    plain = ("id", "method", "created", "updated", "closed", "state")
    row = {name: getattr(session, name) for name in plain}
    model = catalog.known_model(db, session.model)
    db.insert("session", {**row, "title": clean(title), "model": model})
    seqs: dict[str, int] = {}
    for node in found.nodes:
        seqs[node.id] = db.insert("node", _node_row(node, seqs))
    for message in found.messages.values():
        names = ("role", "text", "tokens", "seconds", "stopped_by", "fresh")
        values = {name: getattr(message, name) for name in names}
        db.insert("message", {"node": seqs[message.node], **values})
    for edit in found.edits:
        edits.insert_ended(db, edit, seqs[edit.node], sizes.get(edit.tensors or ""))
    db.insert_all("event", _event_rows(found, seqs))
    if session.tip is not None:
        db.update("session", "id", session.id, {"tip": seqs[session.tip]})


def _node_row(node: Node, seqs: Mapping[str, int]) -> dict[str, Any]:
    names = ("id", "session", "kind", "target", "ledger_hash", "created")
    row = {name: getattr(node, name) for name in names}
    parent = None if node.parent is None else seqs[node.parent]
    return {**row, "parent": parent, "detail": dumps(node.detail)}


def _event_rows(found: Recording, seqs: Mapping[str, int]) -> Iterable[dict[str, Any]]:
    for told in found.events:
        yield {
            "session": found.session.id,
            "node": None if told.node is None else seqs[told.node],
            "job": told.job,
            **{name: told.event[name] for name in ("seq", "t", "kind")},
            "json": dumps(told.event),
        }
