"""Models and sessions: making, naming and listing them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .codec import clean, dumps, now
from .database import Connection, Row
from .errors import UnknownEdit, UnknownReference, UnknownSession
from .fold import fold, superseded
from .ids import new_ulid
from .rows import ModelRow, Session, SessionRow, model_row
from .tree import conversation, session_tip, steps

_LIST = "See llm-edit sessions list."
_SHORTEST = 4  # characters of an id that are accepted for the whole

_SELECT = """
SELECT session.*, node.id AS tip_id FROM session LEFT JOIN node ON node.seq = session.tip
"""

# From every session's tip to its root at once.
_WALKS = """
WITH RECURSIVE walk AS (
  SELECT session.id AS session, 0 AS depth, n.seq, n.parent, n.kind, n.target, n.detail
  FROM session JOIN node n ON n.seq = session.tip
  UNION ALL
  SELECT walk.session, walk.depth + 1, n.seq, n.parent, n.kind, n.target, n.detail
  FROM walk JOIN node n ON n.seq = walk.parent
)
"""


def add_model(db: Connection, values: Mapping[str, str], info: Mapping[str, Any]) -> int:
    """The id of this model (name, fingerprint, dtype), new or known. In a transaction only."""
    row = {**values, "info": dumps(dict(info)), "created": now()}
    db.execute(
        """INSERT INTO model (name, source, fingerprint, dtype, model_type, info, created)
        VALUES (:name, :source, :fingerprint, :dtype, :model_type, :info, :created)
        ON CONFLICT (name, fingerprint, dtype) DO UPDATE SET
          source = excluded.source, model_type = excluded.model_type, info = excluded.info""",
        row,
    )
    found = db.rows(
        """SELECT id FROM model
        WHERE name = :name AND fingerprint = :fingerprint AND dtype = :dtype""",
        row,
    )
    return int(found[0]["id"])


def known_model(db: Connection, model: ModelRow) -> int:
    """The id of this model; where it is known, what is known of it stays. In a transaction only."""
    key = (model.name, model.fingerprint, model.dtype)
    found = db.row("SELECT id FROM model WHERE name = ? AND fingerprint = ? AND dtype = ?", key)
    if found is not None:
        return int(found["id"])
    names = ("name", "source", "fingerprint", "dtype", "model_type")
    row = {name: getattr(model, name) for name in names}
    return db.insert("model", {**row, "info": dumps(model.info), "created": now()})


def fingerprints(db: Connection, name: str, load_in: str = "") -> list[str]:
    """Of the models that were used or imported by this name, their weights held likewise."""
    rows = db.rows(
        """SELECT DISTINCT fingerprint FROM model
        WHERE name = ? AND coalesce(json_extract(info, '$.load_in'), '') = ? ORDER BY id""",
        (name, load_in),
    )
    return [row["fingerprint"] for row in rows]


def create_session(db: Connection, model: int, method: str, title: str) -> str:
    """The id of a new session. Inside a transaction only."""
    session, time = new_ulid(), now()
    db.insert(
        "session",
        {
            "id": session,
            "title": clean(title),
            "model": model,
            "method": method,
            "created": time,
            "updated": time,
            "state": "open",
        },
    )
    return session


def select(db: Connection, tail: str, params: Mapping[str, Any]) -> list[Session]:
    """Sessions with their models; `tail` is what follows FROM."""
    rows = db.rows(f"{_SELECT} {tail}", params)
    models = {row["id"]: model_row(row) for row in db.rows("SELECT * FROM model")}
    return [_session(row, models[row["model"]]) for row in rows]


def latest(db: Connection, model: str | None, *, edited: bool) -> Session | None:
    """The session last used, or last `edited`; of the model with this name if one is given."""
    last_change = """(SELECT max(n.seq) FROM node n LEFT JOIN edit ON edit.node = n.seq
        WHERE n.session = session.id AND n.kind IN ('edit', 'undo', 'redo', 'drop')
          AND coalesce(edit.state, 'done') = 'done')"""
    found = select(
        db,
        f"""JOIN model ON model.id = session.model
        WHERE (:model IS NULL OR model.name = :model)
          {f"AND {last_change} IS NOT NULL" if edited else ""}
        ORDER BY {f"{last_change} DESC" if edited else "session.updated DESC, session.id DESC"}
        LIMIT 1""",
        {"model": model},
    )
    return found[0] if found else None


def _session(row: Row, model: ModelRow) -> Session:
    return Session(
        id=row["id"],
        title=row["title"],
        model=model,
        method=row["method"],
        tip=row["tip_id"],
        created=row["created"],
        updated=row["updated"],
        closed=row["closed"],
        state=row["state"],
    )


def with_counts(db: Connection, sessions: list[Session]) -> list[SessionRow]:
    """The same with the number of messages and of active edits at each tip."""
    counted = db.rows(
        f"{_WALKS} SELECT session, count(*) AS n FROM walk WHERE kind = 'message' GROUP BY session"
    )
    messages = {row["session"]: row["n"] for row in counted}
    walked = db.rows(
        f"""{_WALKS} SELECT walk.session, walk.kind, walk.target, walk.detail, edit.state
        FROM walk LEFT JOIN edit ON edit.node = walk.seq
        WHERE walk.kind <> 'message' ORDER BY walk.depth DESC"""
    )
    named = db.rows(
        """SELECT edit.id, old.value AS old FROM edit, json_each(edit.body, '$.supersedes') AS old
        WHERE edit.state = 'done'"""
    )
    names: dict[str, list[str]] = {}
    for row in named:
        names.setdefault(row["id"], []).append(row["old"])
    changes: dict[str, list[Row]] = {}
    for row in walked:
        changes.setdefault(row["session"], []).append(row)
    states = {session.id: fold(steps(changes.get(session.id, []))) for session in sessions}
    for session in sessions:
        if states[session.id].forgotten:
            seq = session_tip(db, session.id)
            messages[session.id] = len(conversation(db, seq))
    return [
        SessionRow(
            **vars(session),
            messages=messages.get(session.id, 0),
            edits=_acting(states[session.id].active, names),
        )
        for session in sessions
    ]


def _acting(active: Sequence[str], names: Mapping[str, list[str]]) -> int:
    """How many of these edits act; `names` has those that an edit supersedes."""
    return len(active) - len(superseded(active, names))


def find_session(db: Connection, ref: str) -> str:
    """The id of the session that `ref` names. Raises UnknownSession."""
    rows = db.rows("SELECT id, title FROM session ORDER BY updated DESC, id DESC")
    titles = {row["id"]: row["title"] for row in rows}
    return _find(
        ref, titles, lambda message, hint: UnknownSession(f"session {message}", hint or _LIST)
    )


def find_edit(db: Connection, ref: str) -> str:
    """The id of the edit that `ref` names. Raises UnknownEdit."""
    ids = {row["id"]: "" for row in db.rows("SELECT id FROM edit ORDER BY node DESC")}
    return _find(ref, ids, lambda message, hint: UnknownEdit(f"edit {message}", hint))


def _find(
    ref: str, titles: Mapping[str, str], error: Callable[[str, str], UnknownReference]
) -> str:
    """By id, by title, by the beginning or end of an id; never a guess between two."""
    if ref in titles:
        return ref
    lowered = ref.casefold()
    by_title = [i for i, title in titles.items() if title.casefold() == lowered and title]
    ends = [(i, i.casefold()) for i in titles if len(ref) >= _SHORTEST]
    by_part = [i for i, low in ends if low.startswith(lowered) or low.endswith(lowered)]
    found = by_title or by_part
    if len(found) == 1:
        return found[0]
    if found:
        raise error(f"{ref!r} could be {len(found)} things.", f"Say which: {', '.join(found[:5])}.")
    raise error(f"{ref!r} is not known.", _near(ref, titles))


def _near(ref: str, titles: Mapping[str, str]) -> str:
    names = list(dict.fromkeys(name for i, t in titles.items() for name in (t, i) if name))
    near = difflib.get_close_matches(ref, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
