"""What counts as the same, and how far what is not is off."""

from __future__ import annotations

import math

import pytest
from recorded import _measured, _planned, _step

from engine.events import EditStep, JobEnded, Note
from tui.drift import MISSING, compare, of_events


def test_values_that_are_equal_do_not_differ() -> None:
    value = {"a": [1.5, {"b": math.nan}], "c": "text", "d": None, "e": True}
    found = compare(value, {"a": (1.5, {"b": math.nan}), "c": "text", "d": None, "e": True})
    assert (found.n, found.differences) == (5, ())
    assert found.largest is None


def test_a_difference_says_where_and_how_much() -> None:
    found = compare(
        {"steps": [{"loss": 4.0}, {"loss": 2.0}]}, {"steps": [{"loss": 4}, {"loss": 3}]}
    )
    (each,) = found.differences
    assert (each.where, each.recorded, each.found) == ("steps 2 loss", 2.0, 3)
    assert each.size == pytest.approx(1 / 3)
    assert found.beyond(0.4) == ()
    assert found.beyond(0.3) == (each,)


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [
        (0.5, 0.501, 0.001), (-2.0, 2.0, 2.0), (1000, 1001, 1 / 1001),
        (1.0, math.nan, math.inf), (math.inf, 1.0, math.inf), (math.inf, math.inf, 0.0),
        ("Paris", "paris", math.inf), (1, "1", math.inf), (True, 1, math.inf), (None, 0, math.inf),
    ],
)  # fmt: skip
def test_how_far_two_values_are_apart(a: object, b: object, size: float) -> None:
    found = compare(a, b)
    assert [d.size for d in found.differences] == ([pytest.approx(size)] if size else [])


def test_what_one_side_lacks_differs() -> None:
    found = compare({"x": 1, "rows": [1, 2]}, {"rows": [1], "y": 2})
    assert [(d.where, d.recorded, d.found, d.size) for d in found.differences] == [
        ("x", 1, MISSING, math.inf), ("rows 2", 2, MISSING, math.inf), ("y", MISSING, 2, math.inf),
    ]  # fmt: skip


def test_of_an_edit_everything_counts_but_times_and_names() -> None:
    measured = [event for _, event in _measured("e1", "Canberra", "Sydney", True)]
    events = [
        _planned("e1", "Canberra", "What?", "Sydney"), Note(text="x"), _step(1), _step(2),
        *measured, JobEnded(state="done", seconds=1.0),
    ]  # fmt: skip
    found = of_events(events)
    assert set(found["checks"]) == {"said", "rephrased", "neighbours", "fluency", "weight"}
    assert [step["step"] for step in found["steps"]] == [1, 2]
    assert found["plan"]["hparams"] == {"layer": 6}
    assert found["outcome"]["answer_after"] == "Canberra"
    for part in (found["plan"], found["outcome"], *found["steps"], *found["checks"].values()):
        assert not part.keys() & {"job", "seq", "t", "edit", "seconds", "verdict"}
    later = [EditStep(**{**vars(e), "t": 9.0}) if isinstance(e, EditStep) else e for e in events]
    assert compare(found, of_events(later)).differences == ()
