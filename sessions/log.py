"""Events of jobs, as they were told: what replay and the researcher's log read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .codec import dumps
from .database import Connection
from .rows import JsonDict, Told
from .tree import seq_of, session_tip


def add(
    db: Connection, session: str, node: str | None, job: str, events: Sequence[JsonDict]
) -> None:
    """Inside a transaction only. Raises UnknownSession, UnknownNode."""
    session_tip(db, session)
    about = {"session": session, "node": seq_of(db, session, node) if node else None, "job": job}
    db.insert_all(
        "event",
        (
            {**about, "seq": e["seq"], "t": e["t"], "kind": e["kind"], "json": dumps(e)}
            for e in events
        ),
    )


def select(db: Connection, session: str, job: str | None, node: str | None) -> list[JsonDict]:
    """Raises UnknownSession."""
    session_tip(db, session)
    return [found.event for found in told(db, session, job, node)]


def told(
    db: Connection, session: str, job: str | None = None, node: str | None = None
) -> list[Told]:
    """The events of a session, in order; or those of one job, or of one node."""
    rows = db.rows(
        """SELECT node.id AS node, event.job, event.json
        FROM event LEFT JOIN node ON node.seq = event.node
        WHERE event.session = :session AND (:job IS NULL OR event.job = :job)
          AND (:node IS NULL OR node.id = :node)
        ORDER BY event.id""",
        {"session": session, "job": job, "node": node},
    )
    return [Told(row["node"], row["job"], json.loads(row["json"])) for row in rows]
