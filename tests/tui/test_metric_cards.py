"""What the cards say: counts for few samples, percentages for more, failures in words."""

from __future__ import annotations

import math

import pytest

from engine.events import Metric
from tui.texts import clip, visible
from tui.widgets.metric_cards import card, share


def metric(name: str, before: float, after: float, n: int, **detail: object) -> Metric:
    return Metric(name=name, before=before, after=after, n=n, detail=detail)


@pytest.mark.parametrize(
    ("value", "n", "shown"),
    [(0.75, 4, "3/4"), (0.8, 5, "80 % (4/5)"), (1.0, 10, "100 % (10/10)"), (math.nan, 3, "–")],
)
def test_a_percentage_needs_five_samples(value: float, n: int, shown: str) -> None:
    assert share(value, n) == shown


@pytest.mark.parametrize(
    ("after", "mark"), [(1.0, "✓"), (0.75, "◐"), (0.0, "✗")]
)  # fmt: skip
def test_rephrasings_are_marked_by_how_many_hit(after: float, mark: str) -> None:
    shown = card("rephrased", metric("rephrased", 0.0, after, 4))
    assert shown.mark == mark
    assert shown.value == f"0/4 → {round(after * 4)}/4"


def test_a_failed_edit_says_what_the_model_says() -> None:
    shown = card("said", metric("said", 0, 0, 1, answer_after="Seattle", target="Paris"))
    assert (shown.mark, shown.value) == ("✗", "no: “Seattle”")


def test_a_successful_edit_says_so() -> None:
    assert card("said", metric("said", 0, 1, 1, answer_after="Paris")).value == "no → yes"


def test_what_was_not_measured_says_so_once_it_cannot_be_any_more() -> None:
    assert card("rephrased", None).value == ""
    assert card("rephrased", None, over=True).value == "not measured"


@pytest.mark.parametrize(("after", "mark"), [(1.0, "✓"), (0.9, "◐"), (0.5, "✗")])
def test_neighbours(after: float, mark: str) -> None:
    assert card("neighbours", metric("neighbours", 1.0, after, 10)).mark == mark


def test_fluency_is_a_change_of_perplexity() -> None:
    shown = card("fluency", metric("fluency", 10.0, 10.5, 3))
    assert (shown.mark, shown.value) == ("✓", "10.0 → 10.5 (+5.0 %)")
    assert card("fluency", metric("fluency", 10.0, 100.0, 3)).mark == "✗"


def test_the_weight_change_names_the_layer() -> None:
    shown = card("weight", metric("weight", 0, 0.0084, 1, **{"model.layers.6.mlp.down_proj": 0.1}))
    assert shown.value == "0.84 % at layer 6"


def test_what_was_not_measured_is_said() -> None:
    assert card("rephrased", metric("rephrased", math.nan, math.nan, 0)).value == "not measured"
    assert card("fluency", None).value == ""


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [("short", 10, "short"), ("two\nlines", 20, "two lines"), ("longer text", 8, "longer…"),
     ("日本語日本語", 7, "日本語…"), ("x", 0, "")],
)  # fmt: skip
def test_clipping_counts_cells(text: str, room: int, shown: str) -> None:
    assert clip(text, room) == shown


def test_control_characters_become_visible() -> None:
    assert visible("a\x1b[31m\x07\x7f\x9b\n\tb") == "a␛[31m␇␡�\n\tb"
