"""AlphaEdit: MEMIT in the null space of what the model knows (Fang et al. 2025, arXiv:2410.02355).

The update may only act on directions that ordinary keys hardly have, P = QQᵀ with Q the
eigenvectors of the smallest eigenvalues of C (section 3.1), and it leaves the keys of earlier
edits where they are (eq. 14):

    Δ = R KᵀP (K_p K_pᵀP + K KᵀP + λI)⁻¹

In the basis Q the system is symmetric: with K̂ = QᵀK, Δ = R K̂ᵀ (K̂_p K̂_pᵀ + K̂ K̂ᵀ + λI)⁻¹ Qᵀ.
The paper cuts the eigenvalues at a fixed size, which fits one model and no other; here it is a
share of the directions.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..closed_form import Solve, past_keys, rows
from ..edit import Edit
from ..events import Event
from ..spreading import SpreadParams
from .memit import inserted

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request
    from ..statistics import Moment


@dataclass(frozen=True, kw_only=True)
class AlphaEditParams(SpreadParams):
    """Hyper-parameters; see hparams/alphaedit/*.yaml for where the values come from."""

    rank: float = 0.9  # share of the directions that may be written to
    weight: float | None = None  # λ; None: relative_weight times an ordinary key's ‖Qᵀk‖²
    relative_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rank <= 1:
            raise ValueError(f"rank must be a share of the directions, in (0, 1], not {self.rank}")


def alphaedit(
    lm: LM, requests: Sequence[Request], hp: AlphaEditParams
) -> Generator[Event, None, Edit]:
    """AlphaEdit. Any number of requests, each with a subject."""
    began = time.perf_counter()
    moments = yield from lm.statistics.moments(hp.layers, text=hp.text, tokens=hp.tokens)

    def share(layer: int, K: Tensor, held: Tensor | None) -> Tensor:
        past = past_keys(lm, lm.site("mlp_out", layer), hold=hp.past)
        if held is not None:
            past = torch.cat([past, held * (hp.anchor_weight / len(held)) ** 0.5])
        return rows(K, in_null_space(moments[layer], hp, past))

    return (yield from inserted(lm, requests, hp, "alphaedit", share, moments, began))


def in_null_space(moment: Moment, hp: AlphaEditParams, past: Tensor) -> Solve:
    """K → Q (λI + K̂_p K̂_pᵀ)⁻¹ QᵀK for past keys [m, d_ff].

    With fewer past keys than directions by Woodbury, where nothing is larger than m × m.
    """
    Q, energy = moment.least(hp.rank)
    weight = hp.weight
    if weight is None:
        weight = hp.relative_weight * float(energy.clamp_min(0).sum())
    kept = (past.to(Q) @ Q).T.double()  # K̂_p [r, m]

    def solve(K: Tensor) -> Tensor:
        seen = (Q.T @ K.to(Q)).double()
        if kept.shape[1] < kept.shape[0]:
            inner = kept.T @ kept
            inner.diagonal().add_(weight)
            found = (seen - kept @ torch.linalg.solve(inner, kept.T @ seen)) / weight
        else:
            inner = kept @ kept.T
            inner.diagonal().add_(weight)
            found = torch.linalg.solve(inner, seen)
        back: Tensor = Q @ found.to(Q)
        return back

    return solve
