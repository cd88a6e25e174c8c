"""Closed-form edits of a linear map: what keys are mapped to, and what has to stay.

For keys K [d_ff, n] whose outputs should move by the residuals R [d, n],

    min_Δ ‖ΔK − R‖² + tr(Δ M Δᵀ)    has    Δ = R Kᵀ(M + KKᵀ)⁻¹ = R (I + KᵀY)⁻¹Yᵀ,  Y = M⁻¹K

so that a factor of M, kept from edit to edit, and a system of n equations are all that is
needed (Woodbury). M says what may not change: λC in MEMIT (Meng et al. 2023, eq. 14), which
AlphaEdit restricts to a subspace; keys of past edits count in it. With ρI in place of I, ρ → 0
asks for the residuals exactly: EMMET (Gupta et al. 2024b), and ROME for one fact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import EditFailed
from .patches import LowRank
from .statistics import Moment

if TYPE_CHECKING:
    from .lm import LM

Solve = Callable[[Tensor], Tensor]  # K [d_ff, n] → M⁻¹K


def rows(K: Tensor, solve: Solve, ridge: float = 1.0) -> Tensor:
    """B [n, d_ff] of the update Δ = R B: how much of each residual a key receives.

    K      [d_ff, n] the keys
    ridge  ρ, in units of the errors that M weighs; 0: BK = I, the residuals are met exactly
    Raises EditFailed where the keys are so alike that they cannot have different outputs.
    """
    Y = solve(K)
    inner = (K.to(Y).T @ Y).double()
    inner = (inner + inner.T) / 2
    inner.diagonal().add_(ridge)
    factor, info = torch.linalg.cholesky_ex(inner)
    if int(info) != 0:
        raise EditFailed(
            f"{K.shape[1]} keys are too much alike to be mapped to different values.",
            "Ask for them less exactly (--hp ridge=...), or edit fewer facts at a time.",
        )
    found: Tensor = torch.cholesky_solve(Y.T.double(), factor)
    return found.to(Y)


def past_keys(lm: LM, site: str) -> Tensor:
    """Keys [m, d_ff] of the active edits at a site, which a new edit should leave in place."""
    kept = [
        patch.keys.flatten(0, 1)
        for patch in lm.patches
        if isinstance(patch, LowRank) and patch.site == site and patch.keys is not None
    ]
    none = torch.empty(0, lm.arch.mlp_width)
    return torch.cat([none, *(keys.cpu() for keys in kept)]).to(lm.device)


def weighted(
    moment: Moment, weight: float, past: Tensor, anchors: Tensor | None = None, beta: float = 0.0
) -> Solve:
    """Solver for M = λC + Σ k_p k_pᵀ + λ(β/m) Σ a aᵀ: past keys, and anchors as in R-ROME.

    weight   λ
    past     [p, d_ff]
    anchors  [m, d_ff] or None
    """
    held = past / weight**0.5
    if anchors is not None and beta:
        held = torch.cat([held, anchors.to(held) * (beta / len(anchors)) ** 0.5])

    def solve(K: Tensor) -> Tensor:
        return moment.solve(K, held if len(held) else None, len(held)) / weight

    return solve


def resolve(patches: Sequence[LowRank], solve: Solve, ridge: float = 1.0) -> list[LowRank]:
    """The patches of one site, in order, solved again as one system.

    Each was solved in the presence of those before it, so its residuals are what was left to
    move. Towards the unedited map a key has to move by that and by what they moved it. Every
    patch keeps its place and its number of facts; which of them acts on a key, and how much,
    is what changes. They may be on different devices; the new ones are on the CPU.
    Raises EditFailed.
    """
    patches = [_on_cpu(patch) for patch in patches]
    residuals, keys = [], []
    for i, patch in enumerate(patches):
        assert patch.keys is not None
        moved = sum(
            ((patch.keys @ p.B.T) @ p.A.T for p in patches[:i]),
            torch.zeros(*patch.keys.shape[:2], len(patch.A)),
        )  # [r, c, out]
        residuals.append((patch.A.T[:, None] + moved).mean(1).T)
        keys.append(patch.keys)
    asked = torch.cat([k.flatten(0, 1) for k in keys])  # [n, d_ff]
    found = rows(asked.T, solve, ridge).cpu()
    renewed, start = [], 0
    for patch, R in zip(patches, residuals, strict=True):
        assert patch.keys is not None
        r, c = patch.keys.shape[:2]
        B = found[start : start + r * c].view(r, c, -1).sum(1)
        renewed.append(dataclasses.replace(patch, A=R.contiguous(), B=B.contiguous()))
        start += r * c
    return renewed


def _on_cpu(patch: LowRank) -> LowRank:
    keys = None if patch.keys is None else patch.keys.cpu()
    return dataclasses.replace(patch, A=patch.A.cpu(), B=patch.B.cpu(), keys=keys)
