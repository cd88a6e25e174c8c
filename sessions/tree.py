"""Nodes of a session: a tree that only grows, and the tip that moves over it.

Appending anywhere keeps the edits that are active at the tip, and what is forgotten there. Where
the new node's own path would say otherwise (a correction branches at an earlier question, an undo
goes back to an old answer), a `carry` node that states them is put between. Only `move` takes the
state of another place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from .codec import dumps, loads, now
from .database import Connection, Row
from .errors import UnknownNode, UnknownSession
from .fold import State, Step, fold
from .ids import new_ulid
from .rows import JsonDict, Message, Node

_COLUMNS = "n.seq, n.id, n.session, n.parent, n.kind, n.target, n.detail, n.ledger_hash, n.created"

# From the node :seq up to the root. Each step is one primary-key lookup.
_WALK = f"""
WITH RECURSIVE walk AS (
  SELECT 0 AS depth, {_COLUMNS} FROM node n WHERE n.seq = :seq
  UNION ALL
  SELECT walk.depth + 1, {_COLUMNS} FROM walk JOIN node n ON n.seq = walk.parent
)
"""


def session_tip(db: Connection, session: str) -> int | None:
    """The tip's seq; None for a session without nodes. Raises UnknownSession."""
    found = db.row("SELECT tip FROM session WHERE id = ?", (session,))
    if found is None:
        raise UnknownSession(f"there is no session {session}.")
    tip: int | None = found["tip"]
    return tip


def seq_of(db: Connection, session: str, node: str | None) -> int | None:
    """The seq of `node`, by default of the tip. Raises UnknownSession, UnknownNode."""
    tip = session_tip(db, session)
    if node is None:
        return tip
    found = db.row("SELECT seq FROM node WHERE session = ? AND id = ?", (session, node))
    if found is None:
        raise UnknownNode(f"session {session} has no node {node}.")
    return int(found["seq"])


def state_at(db: Connection, seq: int | None) -> State:
    """The fold over the path from the root to `seq`."""
    rows = db.rows(
        f"""{_WALK}
        SELECT walk.kind, walk.target, walk.detail, edit.state FROM walk
        LEFT JOIN edit ON edit.node = walk.seq
        WHERE walk.kind <> 'message' ORDER BY walk.depth DESC""",
        {"seq": seq},
    )
    return fold(steps(rows))


def steps(rows: list[Row]) -> list[Step]:
    """Edits that are not done (running, failed ...) have no effect."""
    return [
        step_of(row["kind"], row["target"], loads(row["detail"]))
        for row in rows
        if row["state"] in (None, "done")
    ]


def step_of(kind: str, target: str | None, detail: JsonDict) -> Step:
    """The effect of a node."""
    if kind == "carry":
        parts = (tuple(detail.get(name, ())) for name in ("active", "undone", "forgotten"))
        return Step(kind, state=State(*parts))
    return Step(kind, target or "", message=detail.get("message", ""))


def detail_of(step: Step) -> JsonDict:
    """What of a step does not fit into a node's kind and target."""
    if step.state is not None:
        state = step.state
        detail = {"active": state.active, "undone": state.undone}
        return detail | ({"forgotten": state.forgotten} if state.forgotten else {})
    return {"message": step.message} if step.message else {}


def append(
    db: Connection,
    session: str,
    tip: int | None,
    parent: str | None,
    step: Step,
    ledger_hash: str | None = None,
) -> int:
    """Add a node under `parent` (default: `tip`); returns its seq. Nothing moves.

    tip          whose edits stay active
    ledger_hash  by default that of `tip`, for a node that changes no edit
    Inside a transaction only. Raises UnknownSession, UnknownNode.
    """
    under = tip if parent is None else seq_of(db, session, parent)
    here = ledger_hash_at(db, tip)
    if under != tip:
        under = _carry(db, session, under, tip, step, here)
    return _insert(db, session, under, step, here if ledger_hash is None else ledger_hash)


def _carry(
    db: Connection, session: str, under: int | None, tip: int | None, step: Step, here: str
) -> int | None:
    """Put a carry node under `under` if the step would otherwise lose what holds at the tip."""
    wanted = state_at(db, tip)
    if fold([step], state_at(db, under)) == fold([step], wanted):
        return under
    return _insert(db, session, under, Step("carry", state=wanted), here)


def _insert(db: Connection, session: str, under: int | None, step: Step, ledger_hash: str) -> int:
    return db.insert(
        "node",
        {
            "id": new_ulid(),
            "session": session,
            "parent": under,
            "kind": step.kind,
            "target": step.edit or None,
            "detail": dumps(detail_of(step)),
            "ledger_hash": ledger_hash,
            "created": now(),
        },
    )


def ledger_hash_at(db: Connection, seq: int | None) -> str:
    """The fingerprint of the edits that act at a node; "" where there are none."""
    found = db.row("SELECT ledger_hash FROM node WHERE seq = ?", (seq,))
    return found["ledger_hash"] if found else ""


def move(db: Connection, session: str, seq: int) -> None:
    """Move the tip. A session that was closed is open again. Inside a transaction only."""
    values = {"tip": seq, "updated": now(), "state": "open", "closed": None}
    db.update("session", "id", session, values)


def nodes(db: Connection, where: str, params: dict[str, Any]) -> list[Node]:
    """Nodes `n` that fulfil `where`, in the order they were made."""
    return _nodes(
        db.rows(
            f"""SELECT {_COLUMNS}, up.id AS above FROM node n
            LEFT JOIN node up ON up.seq = n.parent WHERE {where} ORDER BY n.seq""",
            params,
        )
    )


def path(db: Connection, seq: int | None) -> list[Node]:
    """The nodes from the root to `seq`."""
    rows = db.rows(
        f"{_WALK} SELECT walk.*, NULL AS above FROM walk ORDER BY depth DESC", {"seq": seq}
    )
    for upper, lower in pairwise(rows):
        lower["above"] = upper["id"]
    return _nodes(rows)


def _nodes(rows: list[Row]) -> list[Node]:
    return [
        Node(
            row["id"],
            row["session"],
            row["above"],
            row["kind"],
            row["target"],
            row["ledger_hash"],
            row["created"],
            loads(row["detail"]),
        )
        for row in rows
    ]


def conversation(db: Connection, seq: int | None) -> list[Message]:
    """The messages from the root to `seq`, without those that are forgotten there."""
    rows = db.rows(
        f"""{_WALK}
        SELECT walk.id AS node, role, text, tokens, seconds, stopped_by, fresh, walk.created
        FROM walk JOIN message ON message.node = walk.seq ORDER BY walk.depth DESC""",
        {"seq": seq},
    )
    return remembered(_messages(rows), state_at(db, seq).forgotten)


def messages(db: Connection, session: str) -> list[Message]:
    """Every message of every branch, in the order the tree grew."""
    return _messages(
        db.rows(
            """SELECT n.id AS node, role, text, tokens, seconds, stopped_by, fresh, n.created
            FROM node n JOIN message ON message.node = n.seq
            WHERE n.session = :session ORDER BY n.seq""",
            {"session": session},
        )
    )


def _messages(rows: list[Row]) -> list[Message]:
    return [Message(**{**row, "fresh": bool(row["fresh"])}) for row in rows]


def remembered(messages: Iterable[Message], forgotten: Collection[str]) -> list[Message]:
    """Without the forgotten ones; a forgotten question takes its answers along.

    Where a forgotten question had begun afresh, the next one does: what was said before it must
    not come back into its context.
    """
    kept: list[Message] = []
    gone = fresh = False
    for message in messages:
        if message.role != "assistant":
            gone = message.node in forgotten
            fresh = fresh or (gone and message.fresh)
        if gone or message.node in forgotten:
            continue
        if fresh and message.role != "assistant":
            message, fresh = replace(message, fresh=True), False
        kept.append(message)
    return kept
