"""Intervals: repeatable, of the right width, weighted where records count differently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.evaluate.bootstrap import estimate, percentile


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=400)
    found = estimate(list(values))
    error = values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)
    assert found.n == 400


def test_it_repeats() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert estimate(values) == estimate(values)


def test_equal_values_have_no_width() -> None:
    found = estimate([1.0] * 7)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_nothing_is_nan_and_null() -> None:
    found = estimate([])
    assert math.isnan(found.mean)
    assert found.n == 0
    assert found.to_json() == {"mean": None, "low": None, "high": None, "n": 0}


def test_weights_make_it_a_ratio() -> None:
    found = estimate([1.0, 0.0, 0.5], weights=[3, 1, 0])
    assert found.mean == pytest.approx(0.75)
    assert found.n == 2  # a record of weight 0 is no record
    assert found.low == 0.0
    assert found.high == 1.0


def test_percentile() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == 3.0
    assert percentile(list(map(float, range(101))), 0.95) == pytest.approx(95)
    assert math.isnan(percentile([], 0.5))
