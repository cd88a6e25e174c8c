"""The single-edit protocol over a data set: edit, measure, undo, and prove the undo.

Per record: everything is measured on the unedited model, the fact is edited in, everything is
measured again, the edit is undone, and the logits of 20 fixed prompts are compared bit for bit
with those before any edit. The unedited numbers come from the base model, never from a model
that another record left behind.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import BadInput, EditFailed
from ..evaluate.bootstrap import Estimate, estimate, percentile
from ..evaluate.datasets import Dataset, Record
from ..evaluate.metrics import Measured, harmonic_mean, judge, mean, measure
from ..events import Event, Loading, Note
from ..lm import LM
from .exact import check_undone, fixed_logits
from .once import described, hparams, timed
from .peak import peak_memory
from .results import JsonDict, Results

PROTOCOL = "single"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to edit: the method, its overrides, and whether prompts are asked as chat turns."""

    method: str = "r-rome"
    overrides: Mapping[str, str] = field(default_factory=dict)
    chat: bool = False
    seed: int = 0

    def to_json(self, lm: LM, data: Dataset) -> JsonDict:
        """What a results file is about. The number of records is not part of it: a file can
        be extended by running with a larger n."""
        return {
            "protocol": PROTOCOL,
            "data": data.name,
            "data_sha256": data.sha256,
            **described(lm),
            "method": self.method,
            "hparams": self.hparams(lm).to_json(),
            "prompts": "chat" if self.chat else "statement",
            "seed": self.seed,
        }

    def hparams(self, lm: LM) -> Any:
        """Resolved, with this seed."""
        return hparams(lm, self.method, self.overrides, self.seed)


def run(
    lm: LM,
    records: Sequence[Record],
    settings: Settings,
    results: Results,
    unedited: dict[str, Measured] | None = None,
) -> Generator[Event, None, None]:
    """Every record not yet in `results`, one row each, in order.

    unedited  by record, what the unedited model says, for the runs of other methods on the same
              records: it is filled here, and what is there is not measured again

    A record whose edit fails is recorded as failed and counts as unchanged, never left out.
    Yields Loading(stage="bench") per record and a Note for each failure; raises UndoNotExact.
    """
    if not records:
        raise BadInput("there are no records to run.", "--n must be at least 1.")
    hp, unedited = settings.hparams(lm), {} if unedited is None else unedited
    todo = [r for r in records if r.id not in results.rows]
    if todo:
        fresh = fixed_logits(lm)
        yield from _warm_up(lm, todo[0], settings, hp)
    done = len(records) - len(todo)
    for record in todo:
        request = replace(record.request, chat=settings.chat).check()
        record = replace(record, request=request)
        if record.id not in unedited:
            unedited[record.id] = measure(lm, record)
        row = yield from edited(lm, record, settings.method, hp, unedited[record.id])
        check_undone(lm, fresh, row["edit"])
        results.add(record.id, {**row, "exact": True})
        if row["error"]:
            yield Note(text=f"record {record.id}: {row['error']}")
        done += 1
        yield Loading(stage="bench", done=done, total=len(records), unit="records")


def _warm_up(lm: LM, record: Record, settings: Settings, hp: Any) -> Generator[Event, None, None]:
    """One edit thrown away: what is made once per model is not part of any record's time."""
    request = replace(record.request, chat=settings.chat).check()
    try:
        yield from timed(lm, settings.method, [request], hp)
    except EditFailed as error:
        yield Note(text=f"warm-up: {error}")


def edited(
    lm: LM, record: Record, method: str, hp: Any, before: Measured
) -> Generator[Event, None, JsonDict]:
    """One record edited, measured and undone: its row; `peak` in bytes above the loaded model.

    before  the record on the unedited model
    """
    try:
        with peak_memory() as peak:
            edit, seconds = yield from timed(lm, method, [record.request], hp)
    except EditFailed as error:
        return _row(record, before, before, {"edit": "", "error": str(error)})
    with lm.active(edit.patches):
        after = measure(lm, record)
    numbers = {k: v for k, v in edit.numbers.items() if isinstance(v, (int, float))}
    told = {
        "edit": edit.id,
        "error": "",
        "seconds": {"total": seconds, **edit.numbers.get("seconds", {})},
        "numbers": numbers,
        "peak": peak(),
    }
    return _row(record, before, after, told)


def _row(record: Record, before: Measured, after: Measured, told: JsonDict) -> JsonDict:
    request = record.request
    return {
        **told,
        "prompt": request.prompt,
        "subject": request.subject,
        "target": request.target_new,
        "metrics": judge(record, before, after),
        "texts": {
            "said": [before.said.text, after.said.text],
            "rephrased": [
                [b.text, a.text] for b, a in zip(before.rephrased, after.rephrased, strict=True)
            ],
        },
    }


# -- what came of it ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One measure of a table: unedited, edited, and the change record by record."""

    name: str
    before: Estimate
    after: Estimate
    change: Estimate


METRICS = (
    "said", "ES", "PS", "rephrased", "NS", "EM", "PM", "NM", "rel", "gen", "loc",
)  # fmt: skip


def lines(results: Results, n: int | None = None) -> list[Line]:
    """Each metric over the first `n` records; those that the data does not define are left out."""
    rows = list(results.rows.values())[:n]
    found = []
    for name in METRICS:
        sides = [(_number(r, name, "before"), _number(r, name, "after")) for r in rows]
        known = [(b, a) for b, a in sides if not (math.isnan(b) or math.isnan(a))]
        if known:
            before, after = ([pair[i] for pair in known] for i in (0, 1))
            change = [a - b for b, a in known]
            found.append(Line(name, estimate(before), estimate(after), estimate(change)))
    return found


def summary(results: Results, n: int | None = None) -> JsonDict:
    """Everything of a run as one JSON object: see `report.run_table` for the same in Markdown."""
    rows = list(results.rows.values())[:n]
    measured = lines(results, n)
    after = {line.name: line.after.mean for line in measured}
    parts = sorted({part for r in rows for part in r.get("seconds", {})})
    times = {p: [r["seconds"][p] for r in rows if p in r.get("seconds", {})] for p in parts}
    trio = [after[k] for k in ("ES", "PS", "NS") if k in after]
    return {
        "n": len(rows),
        "failed": sum(bool(r["error"]) for r in rows),
        "metrics": {
            line.name: {
                "before": line.before.to_json(),
                "after": line.after.to_json(),
                "change": line.change.to_json(),
            }
            for line in measured
        },
        "S": harmonic_mean(trio) if len(trio) == 3 else None,
        "seconds": {
            part: {"median": percentile(v, 0.5), "p95": percentile(v, 0.95), "mean": mean(v)}
            for part, v in times.items()
        },
        "peak": max((r["peak"] for r in rows if "peak" in r), default=0),
        "exact": sum(bool(r["exact"]) for r in rows),  # a run that met another undo ended there
        "settings": results.header["settings"],
        "environment": results.header["environment"],
    }


def _number(row: JsonDict, name: str, side: str) -> float:
    value = row["metrics"].get(name, {}).get(side)
    return math.nan if value is None else float(value)
