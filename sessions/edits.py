"""Edits as they are recorded: the intent first, the outcome in one piece."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import owner
from .codec import clean, dumps, loads, now
from .database import Connection, Row
from .errors import UnknownEdit
from .rows import EditRow, JsonDict, MetricRecord, PatchRecord, edit_row

ENDED = ("failed", "cancelled")

_SELECT = """
SELECT edit.id, node.id AS node, node.session, method, hparams, request, edit.state, error, seed,
  device, owner, node.created, finished, node.ledger_hash, seconds, peak_memory, success, verdict,
  before, after, versions, body, tensors
FROM edit JOIN node ON node.seq = edit.node
"""


def insert(db: Connection, seq: int, edit_id: str, values: JsonDict, request: JsonDict) -> None:
    """The intent: a running edit of this process. Inside a transaction only."""
    row = {
        "id": edit_id,
        "node": seq,
        **values,
        "request": dumps(request),
        "fact": fact(request),
        "state": "running",
        "owner": owner.current(),
    }
    db.insert("edit", row)


def fact(request: Mapping[str, Any]) -> str:
    """The words of a request (or of a batch under `requests`) that search should find."""
    parts: Iterable[Mapping[str, Any]] = request.get("requests") or [request]
    names = ("prompt", "subject", "target_new", "target_old")
    lines = (" · ".join(str(part[n]) for n in names if part.get(n)) for part in parts)
    return clean("\n".join(line for line in lines if line))


def finish(db: Connection, edit_id: str, values: JsonDict) -> None:
    """The outcome. Inside a transaction only; the tensor file is there already."""
    done = {"state": "done", "error": "", "finished": now(), **values}
    db.update("edit", "id", edit_id, done)


def insert_ended(db: Connection, edit: EditRow, seq: int, size: int | None) -> None:
    """An edit with its outcome, from elsewhere. size: bytes of the tensor file."""
    plain = ("id", "method", "state", "error", "seed", "device", "owner", "finished",
             "peak_memory", "success", "verdict", "tensors")  # fmt: skip
    packed = ("hparams", "request", "seconds", "before", "after", "versions", "body")
    row = {name: getattr(edit, name) for name in plain}
    row |= {name: dumps(getattr(edit, name)) for name in packed}
    db.insert("edit", {**row, "node": seq, "fact": fact(edit.request), "size": size})
    insert_patches(db, edit.id, edit.patches)
    insert_metrics(db, edit.id, edit.metrics)


def named(db: Connection) -> set[str]:
    """The tensor files that edits have."""
    rows = db.rows("SELECT DISTINCT tensors FROM edit WHERE tensors IS NOT NULL")
    return {row["tensors"] for row in rows}


def insert_patches(db: Connection, edit_id: str, patches: Sequence[PatchRecord]) -> None:
    db.insert_all(
        "patch",
        (
            {
                "edit": edit_id,
                "position": position,
                "kind": patch.kind,
                "site": patch.site,
                "rank": patch.rank,
                "norm_ratio": patch.norm_ratio,
            }
            for position, patch in enumerate(patches)
        ),
    )


def insert_metrics(db: Connection, edit_id: str, metrics: Iterable[MetricRecord]) -> None:
    db.insert_all(
        "metric",
        (
            {
                "edit": edit_id,
                "name": metric.name,
                "before": metric.before,
                "after": metric.after,
                "n": metric.n,
                "detail": dumps(metric.detail),
            }
            for metric in metrics
        ),
    )


def metric_records(metrics: Mapping[str, Mapping[str, Any]]) -> list[MetricRecord]:
    """`{name: {before, after, n, detail}}` as records; missing numbers are NaN."""
    plain: dict[str, JsonDict] = loads(dumps(dict(metrics)))  # NaN may have come encoded
    return [
        MetricRecord(
            name=name,
            before=_measured(found.get("before")),
            after=_measured(found.get("after")),
            n=int(found.get("n", 0)),
            detail=found.get("detail", {}),
        )
        for name, found in plain.items()
    ]


def _measured(value: float | None) -> float:
    return math.nan if value is None else float(value)


def select(db: Connection, where: str, params: Mapping[str, Any]) -> list[EditRow]:
    """Edits that fulfil `where`, in the order they were begun."""
    rows = db.rows(f"{_SELECT} WHERE {where} ORDER BY edit.node", params)
    ids = dumps([row["id"] for row in rows])
    inside = "WHERE edit IN (SELECT value FROM json_each(:ids))"
    metrics = db.rows(f"SELECT * FROM metric {inside} ORDER BY rowid", {"ids": ids})
    patches = db.rows(
        f"SELECT *, norm_ratio AS ratio FROM patch {inside} ORDER BY position", {"ids": ids}
    )
    by_metric, by_patch = _grouped(metrics), _grouped(patches)
    return [edit_row(r, by_metric.get(r["id"], []), by_patch.get(r["id"], [])) for r in rows]


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["edit"], []).append(row)
    return groups


def costs(
    db: Connection, fingerprint: str, device: str, method: str, limit: int
) -> list[tuple[float, int]]:
    """(total seconds, peak bytes) of the newest edits of one fact of a model that were done."""
    rows = db.rows(
        """SELECT json_extract(edit.seconds, '$.total') AS total, peak_memory
        FROM edit JOIN node ON node.seq = edit.node JOIN session ON session.id = node.session
        JOIN model ON model.id = session.model
        WHERE edit.state = 'done' AND model.fingerprint = :fingerprint
          AND edit.device = :device AND edit.method = :method
          AND json_array_length(edit.body, '$.requests') = 1
        ORDER BY edit.node DESC LIMIT :limit""",
        {"fingerprint": fingerprint, "device": device, "method": method, "limit": limit},
    )
    return [(row["total"], row["peak_memory"]) for row in rows if row["total"] is not None]


def by_ids(db: Connection, ids: Sequence[str]) -> list[EditRow]:
    """The edits with these ids, in this order."""
    where = "edit.id IN (SELECT value FROM json_each(:ids))"
    found = {edit.id: edit for edit in select(db, where, {"ids": dumps(list(ids))})}
    return [found[i] for i in ids]


def by_node(db: Connection, node: str) -> EditRow:
    """Raises UnknownEdit."""
    found = select(db, "node.id = :node", {"node": node})
    if not found:
        raise UnknownEdit(f"node {node} is not an edit.")
    return found[0]


def mark_interrupted(db: Connection) -> list[str]:
    """Running edits whose process is gone: marked, their ids returned. In a transaction only."""
    running = db.rows("SELECT id, owner FROM edit WHERE state = 'running' ORDER BY node")
    dead = [row["id"] for row in running if not owner.is_alive(row["owner"])]
    for edit_id in dead:
        end(db, edit_id, "interrupted", "the process ended before the edit did.")
    return dead


def end(db: Connection, edit_id: str, state: str, error: str) -> None:
    """An edit that came to nothing. Inside a transaction only."""
    values = {"state": state, "error": clean(error), "finished": now()}
    db.update("edit", "id", edit_id, values)
