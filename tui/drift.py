"""How far a second run is from the recorded one: every number and every word, and where.

Plain data on both sides; imports neither torch nor a user interface.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.events import EditApplied, EditPlanned, EditStep, Event, Metric
from sessions.rows import EditRow

TOLERANCE = 0.01
# What differs between two runs by nature, or only says again what is compared elsewhere.
LEFT_OUT = frozenset({"job", "seq", "t", "edit", "seconds", "verdict"})


@dataclass(frozen=True)
class Difference:
    """One value that is not the same.

    where  "steps 3 loss"
    size   |a - b| / max(1, |a|, |b|) of two numbers; infinite for anything else
    """

    where: str
    recorded: Any
    found: Any
    size: float


@dataclass(frozen=True)
class Comparison:
    """n: values that were compared; differences: those that are not the same, as they stand."""

    n: int
    differences: tuple[Difference, ...]

    def beyond(self, tolerance: float) -> tuple[Difference, ...]:
        return tuple(each for each in self.differences if each.size > tolerance)

    @property
    def largest(self) -> Difference | None:
        return max(self.differences, key=lambda each: each.size, default=None)


def compare(recorded: Any, found: Any) -> Comparison:
    """Two values of the same shape: numbers, texts, and mappings and sequences of them."""
    pairs = list(_pairs(recorded, found, ""))
    differing = (Difference(*pair, _size(pair[1], pair[2])) for pair in pairs)
    return Comparison(len(pairs), tuple(each for each in differing if each.size > 0))


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


def _pairs(a: Any, b: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """The leaves of both, by where they stand."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from _pairs(a.get(key, MISSING), b.get(key, MISSING), f"{where} {key}".strip())
    elif _listed(a) and _listed(b):
        for i in range(max(len(a), len(b))):
            left, right = (x[i] if i < len(x) else MISSING for x in (a, b))
            yield from _pairs(left, right, f"{where} {i + 1}".strip())
    else:
        yield where, a, b


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _size(a: Any, b: Any) -> float:
    if not (_is_number(a) and _is_number(b)):
        return 0.0 if a == b and isinstance(a, bool) == isinstance(b, bool) else math.inf
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    size = abs(a - b) / max(1.0, abs(a), abs(b))
    return size if math.isfinite(size) else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# -- what there is to compare of an edit ---------------------------------------------------------


def of_events(events: Sequence[Event]) -> dict[str, Any]:
    """Everything that the events of an edit say: the plan, each step, each check, the outcome."""
    found: dict[str, Any] = {"plan": {}, "steps": [], "checks": {}, "outcome": {}}
    for event in events:
        if isinstance(event, EditPlanned):
            found["plan"] = _fields(event)
        elif isinstance(event, EditStep):
            found["steps"].append(_fields(event))
        elif isinstance(event, Metric):
            found["checks"][event.name] = _fields(event)
        elif isinstance(event, EditApplied):
            found["outcome"] = _fields(event)
    return found


def _fields(event: Event) -> dict[str, Any]:
    return {name: value for name, value in vars(event).items() if name not in LEFT_OUT}


def of_row(row: EditRow) -> dict[str, Any]:
    """The same of an edit whose events were not written, as far as its row has it."""
    checks = {
        m.name: {"name": m.name, "before": m.before, "after": m.after, "n": m.n, "detail": m.detail}
        for m in row.metrics
    }
    return {"checks": checks, "outcome": {"success": row.success}}
