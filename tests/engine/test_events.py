"""Events: every kind survives JSON, whatever its numbers are."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.events import KINDS, SCHEMA, EditStep, Event, Metric, from_json

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(max_size=20)
# What a detail or a setting may hold: JSON values, and the floats that JSON lacks.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DICTS = st.dictionaries(TEXTS, VALUES, max_size=4)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXTS,
    "str | None": st.none() | TEXTS,
    "int": st.integers(-(2**40), 2**40),
    "float": NUMBERS,
    "bool": st.booleans(),
    "tuple[str, ...]": st.lists(TEXTS, max_size=3).map(tuple),
    "tuple[JsonDict, ...]": st.lists(DICTS, max_size=3).map(tuple),
    "JsonDict": DICTS,
    "dict[str, float]": st.dictionaries(TEXTS, NUMBERS, max_size=4),
}


def event_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    fields = {f.name: BY_TYPE[str(f.type)] for f in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


def same(a: Any, b: Any) -> bool:
    """Equality under which NaN equals NaN, and types count."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_every_kind_survives_json(kind: str, data: st.DataObject) -> None:
    event = data.draw(event_of(KINDS[kind]))
    text = json.dumps(event.to_json(), allow_nan=False)  # strict JSON: no bare NaN
    back = from_json(json.loads(text))
    assert type(back) is type(event)
    for field in dataclasses.fields(event):
        assert same(getattr(back, field.name), getattr(event, field.name)), field.name


def test_every_event_class_is_registered() -> None:
    classes = {
        name: cls
        for name, cls in vars(events).items()
        if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event
    }
    assert classes == KINDS


def test_nan_and_infinity_are_words_not_null() -> None:
    step = EditStep(step=1, of=2, loss=math.inf, parts={"kl": -math.inf}, p_new=math.nan, p_old=0.5)
    written = step.to_json()
    assert written["loss"] == {"float": "inf"}
    assert written["parts"] == {"kl": {"float": "-inf"}}
    assert written["p_new"] == {"float": "nan"}
    assert written["p_old"] == 0.5
    assert (written["kind"], written["v"]) == ("EditStep", SCHEMA)


def test_stamps_survive() -> None:
    metric = Metric(name="said", before=0, after=1, n=1, job="j1", seq=7, t=1.25)
    back = from_json(metric.to_json())
    assert (back.job, back.seq, back.t) == ("j1", 7, 1.25)


def test_a_field_from_a_later_version_is_ignored() -> None:
    written = Metric(name="said", before=0, after=1, n=1).to_json()
    assert from_json({**written, "colour": "blue"}) == from_json(written)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "Telepathy"}, "unknown event kind 'Telepathy'"),
        ({}, "unknown event kind None"),
        ({"kind": "Note", "text": "", "v": SCHEMA + 1}, f"event schema {SCHEMA + 1} is newer"),
    ],
)
def test_what_is_not_an_event_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(data)


def test_events_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Metric(name="said", before=0, after=1, n=1).n = 2  # type: ignore[misc]


def test_importing_them_loads_no_torch() -> None:
    code = "import sys, engine.events, engine.requests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
