"""Intervals for means over records. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
SEED = 20_130


@dataclass(frozen=True)
class Estimate:
    """A mean over records with its 95 % percentile bootstrap interval.

    NaN throughout when there are no records.
    """

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """NaN as null."""
        body = {"mean": self.mean, "low": self.low, "high": self.high}
        return {k: None if math.isnan(v) else v for k, v in body.items()} | {"n": self.n}


def estimate(
    values: Sequence[float], *, weights: Sequence[float] | None = None, seed: int = SEED
) -> Estimate:
    """Mean of `values` (one per record) and its interval: records drawn with replacement.

    weights   where a record counts for several things (its kept neighbours of so many): the
              ratio sum(w v) / sum(w); records of weight 0 count for nothing
    Proportions that are 0 or 1 in the sample get the degenerate interval that the bootstrap
    gives; n says how much that is worth.
    """
    v = np.asarray(values, dtype=np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, dtype=np.float64)
    v, w = v[w > 0], w[w > 0]
    if not len(v):
        return Estimate(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(0, len(v), size=(RESAMPLES, len(v)))
    means = (v * w)[drawn].sum(axis=1) / w[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float((v * w).sum() / w.sum()), float(low), float(high), len(v))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, interpolated; NaN of nothing."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), share)) if values else math.nan
