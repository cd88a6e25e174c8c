"""What the store gives back: frozen rows, plain data. Times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import ids
from .codec import loads, number

JsonDict = dict[str, Any]


@dataclass(frozen=True)
class ModelRow:
    id: int
    name: str
    source: str
    fingerprint: str
    dtype: str
    model_type: str
    info: JsonDict


@dataclass(frozen=True)
class Session:
    """A chat with one model.

    tip     id of the node where the session stands; None before the first
    state   "open"; a bundle can bring another one, with the time at which it was `closed`
    """

    id: str
    title: str
    model: ModelRow
    method: str
    tip: str | None
    created: str
    updated: str
    closed: str | None
    state: str

    @property
    def short(self) -> str:
        """The end of the id, enough to name the session by."""
        return ids.short(self.id)


@dataclass(frozen=True)
class SessionRow(Session):
    """A line of the list: `messages`, and `edits` that act, at the tip."""

    messages: int
    edits: int


@dataclass(frozen=True)
class Node:
    """A step of a session.

    kind         message | edit | undo | redo | drop | carry | forget | remember
    target       the edit that an edit, undo, redo or drop is about
    ledger_hash  fingerprint of the ledger after this node; "" for no edits
    detail       of a forget or remember: `message`, the node it is about; of a carry: the ids
                 that are `active`, `undone` and `forgotten` from here on
    """

    id: str
    session: str
    parent: str | None
    kind: str
    target: str | None
    ledger_hash: str
    created: str
    detail: JsonDict = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Message:
    """node: id. fresh: asked without the conversation before it. seconds: time to answer."""

    node: str
    role: str
    text: str
    tokens: int
    seconds: float
    stopped_by: str
    fresh: bool
    created: str


@dataclass(frozen=True, kw_only=True)
class PatchRecord:
    """One patch of an edit: rank 0 where it has none, norm_ratio ‖Δ‖/‖W‖ or NaN."""

    kind: str
    site: str
    rank: int = 0
    norm_ratio: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """One measurement before and after; NaN where there is none."""

    name: str
    before: float
    after: float
    n: int
    detail: JsonDict = field(default_factory=dict)


@dataclass(frozen=True)
class EditRow:
    """One edit, in any state: running | done | failed | cancelled | interrupted.

    Fields after `peak_memory` are empty, and `success` None, unless the state is done.
    body       the JSON half of the engine's edit; `tensors` names the file with the other half
    seconds    by stage; peak_memory in bytes
    """

    id: str
    node: str
    session: str
    method: str
    hparams: JsonDict
    request: JsonDict
    state: str
    error: str
    seed: int
    device: str
    owner: str
    created: str
    finished: str | None
    ledger_hash: str
    seconds: dict[str, float]
    peak_memory: int
    success: bool | None
    verdict: str
    before: JsonDict
    after: JsonDict
    versions: JsonDict
    body: JsonDict
    tensors: str | None
    metrics: tuple[MetricRecord, ...]
    patches: tuple[PatchRecord, ...]

    @property
    def supersedes(self) -> tuple[str, ...]:
        """Ids of the edits of the same question that do not act while this one is active."""
        found = self.body.get("supersedes")  # absent from what earlier versions wrote
        return tuple(map(str, found)) if isinstance(found, list) else ()


@dataclass(frozen=True)
class Told:
    """An event of a job. node: what it belongs to; event: the engine's JSON, left encoded."""

    node: str | None
    job: str
    event: JsonDict


@dataclass(frozen=True)
class Removed:
    """What was removed: sessions, how many tensor files; and whether the space was given back."""

    sessions: tuple[Session, ...]
    files: int
    vacuumed: bool


@dataclass(frozen=True)
class Hit:
    """A found text. kind: question | answer | fact; snippet: the words around the match."""

    session: str
    title: str
    node: str
    kind: str
    text: str
    snippet: str
    created: str


_JSON = {"hparams", "request", "seconds", "before", "after", "versions", "body"}


def model_row(row: Mapping[str, Any]) -> ModelRow:
    values = {name: row[name] for name in ModelRow.__dataclass_fields__ if name != "info"}
    return ModelRow(**values, info=loads(row["info"]))


def edit_row(
    row: Mapping[str, Any], metrics: list[dict[str, Any]], patches: list[dict[str, Any]]
) -> EditRow:
    values = {key: loads(value) if key in _JSON else value for key, value in row.items()}
    values["success"] = None if row["success"] is None else bool(row["success"])
    values["metrics"] = tuple(_metric(m) for m in metrics)
    values["patches"] = tuple(
        PatchRecord(kind=p["kind"], site=p["site"], rank=p["rank"], norm_ratio=number(p["ratio"]))
        for p in patches
    )
    return EditRow(**values)


def _metric(row: Mapping[str, Any]) -> MetricRecord:
    return MetricRecord(
        name=row["name"],
        before=number(row["before"]),
        after=number(row["after"]),
        n=row["n"],
        detail=loads(row["detail"]),
    )
