"""Closed-form edits of a linear map: what keys are mapped to, and what has to stay.

For keys K [d_ff, n] whose outputs should move by the residuals R [d, n],

    min_Δ ‖ΔK − R‖² + tr(Δ M Δᵀ)    has    Δ = R Kᵀ(M + KKᵀ)⁻¹ = R (I + KᵀY)⁻¹Yᵀ,  Y = M⁻¹K

so that a factor of M, kept from edit to edit, and a system of n equations are all that is
needed (Woodbury). M says what may not change: λC in MEMIT (Meng et al. 2023, eq. 14), which
AlphaEdit restricts to a subspace; keys of past edits count in it. With ρI in place of I, ρ → 0
asks for the residuals exactly: EMMET (Gupta et al. 2024b), and ROME for one fact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import EditFailed
from .patches import LowRank, Patch
from .statistics import Moment

if TYPE_CHECKING:
    from .lm import LM

ALIKE = 1e-5  # of the largest eigenvalue: float32 cannot tell less from nothing
MET = 1e-2  # of a residual
Solve = Callable[[Tensor], Tensor]  # K [d_ff, n] → M⁻¹K


def rows(K: Tensor, solve: Solve, ridge: float = 1.0, receive: Tensor | None = None) -> Tensor:
    """B [r, d_ff] of the update Δ = R B: how much of each residual a key receives.

    K        [d_ff, n] the keys
    ridge    ρ, in units of the errors that M weighs; 0: the residuals are met exactly
    receive  [n, r] which of the r residuals each key is to receive; None: each its own
    Raises EditFailed where keys are so alike that they cannot receive different residuals.
    """
    Y = solve(K)
    inner = (K.to(Y).T @ Y).double()
    inner = (inner + inner.T) / 2
    inner.diagonal().add_(ridge)
    asked = torch.eye(K.shape[1]) if receive is None else receive
    asked = asked.to(inner)
    shares = _regular(inner, asked) if ridge else _exact(inner, asked)
    found: Tensor = shares.T @ Y.T.double()
    return found.to(Y)


def _regular(inner: Tensor, asked: Tensor) -> Tensor:
    """X [n, r] with inner X = asked. Raises EditFailed where rounding has outgrown the ridge."""
    factor, info = torch.linalg.cholesky_ex(inner)
    if int(info) != 0:
        raise _too_alike(len(asked))
    found: Tensor = torch.cholesky_solve(asked, factor)
    return found


def _exact(inner: Tensor, asked: Tensor) -> Tensor:
    """X [n, r] with inner X = asked, the smallest where keys are the same but for rounding.

    Raises EditFailed where there is none: such keys were to receive different residuals.
    """
    if not len(asked):
        return asked
    if not bool((inner.diagonal() > 0).all()):  # NaN too
        raise _too_alike(len(asked))
    size = inner.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(inner / size.outer(size))
    wanted = vectors.T @ (asked / size[:, None])
    told_apart = (values > ALIKE * values[-1])[:, None]
    shares: Tensor = (vectors @ (wanted / values[:, None]).where(told_apart, 0)) / size[:, None]
    if not bool(((inner @ shares - asked).abs() < MET).all()):
        raise _too_alike(len(asked))
    return shares


def _too_alike(keys: int) -> EditFailed:
    return EditFailed(
        f"of {keys} keys some are too much alike to be mapped to different values.",
        "Ask for them less exactly (--hp ridge=...), or edit fewer facts at a time.",
    )


def patch_of(lm: LM, site: str, A: Tensor, B: Tensor, keys: Tensor) -> LowRank:
    """The patch of an update A B, with what it was solved for: see `patches.LowRank`.

    A     [d, r] residuals in the presence of the edits that are active now
    keys  [r, c, d_ff]
    """
    moves = A.clone()
    for patch in lm.patches:
        if patch.site == site:
            moves += patch.moved(keys).mean(1).T.to(moves)
    return LowRank(site, A.contiguous(), B.contiguous(), keys.contiguous(), moves)


def past_keys(lm: LM, site: str, *, hold: bool = True) -> Tensor:
    """Keys [m, d_ff] of the active edits at a site, which a new edit should leave in place; none
    (m = 0) where it need not hold them."""
    kept = [
        patch.keys.flatten(0, 1).cpu()
        for patch in lm.patches
        if hold and isinstance(patch, LowRank) and patch.site == site and patch.keys is not None
    ]
    return torch.cat([torch.empty(0, lm.arch.reader.mlp_width), *kept]).to(lm.device)


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


def resolve(
    patches: Sequence[LowRank], solve: Solve, ridge: float = 1.0, beside: Sequence[Patch] = ()
) -> list[LowRank]:
    """The patches of one site solved again as one system, each fact for all that it `moves`.

    Every patch keeps its place and its facts; which of them acts on a key, and how much, is what
    changes. They may be on different devices; the new ones are on the CPU.

    beside  other patches of the site, which go on acting: what they do to a key is not asked for
    Raises EditFailed.
    """
    asked = [patch.keys.cpu() for patch in patches if patch.keys is not None]
    assert len(asked) == len(patches)
    facts = [len(keys) for keys in asked]
    each = torch.cat([torch.full((len(keys),), keys.shape[1]) for keys in asked])
    K = torch.cat([keys.flatten(0, 1) for keys in asked]).T
    found = rows(K, solve, ridge, torch.eye(sum(facts)).repeat_interleave(each, 0))
    parts = torch.split(found.cpu(), facts)
    renewed = []
    for patch, keys, B in zip(patches, asked, parts, strict=True):
        assert patch.moves is not None
        moves = patch.moves.cpu()
        A = moves.clone()
        for other in beside:
            A -= other.moved(keys).mean(1).T.to(A)
        renewed.append(LowRank(patch.site, A, B, keys, moves))
    return renewed
