"""LoRA: gradient descent on low-rank factors beside chosen matrices (Hu et al. 2021).

    W x + (α / r) A (B x)        A [out, r] = 0 and B [r, in] random at the start

trained on the target's tokens as in FT-M, the model frozen. What comes of it is a low-rank patch
per matrix, and can be exported as the adapter that it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..above import Above
from ..config import Layer
from ..descent import DescentParams, descend
from ..edit import Edit
from ..events import Event
from ..hooks import Change
from ..patches import LowRank
from .posing import posed

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request

Part = Literal["mlp_out", "mlp_in", "attn_out"]


@dataclass(frozen=True, kw_only=True)
class LoraParams(DescentParams):
    """Hyper-parameters; see hparams/lora/*.yaml for where the values come from."""

    layers: tuple[Layer, ...]  # 0-based; of the decoder
    parts: tuple[Part, ...] = ("mlp_out",)  # of each of these layers
    rank: int = 8  # r
    alpha: float = 32.0  # α

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not self.parts:
            raise ValueError("'layers' and 'parts' must name what is trained.")
        if self.rank < 1:
            raise ValueError(f"'rank' must be at least 1, not {self.rank}.")


def lora(lm: LM, requests: Sequence[Request], hp: LoraParams) -> Generator[Event, None, Edit]:
    """LoRA. Any number of requests."""
    sites = tuple(
        site for layer in hp.layers for part in hp.parts for site in lm.arch.sites(part, layer)
    )
    facts = yield from posed(lm, requests, hp, sites, "lora")
    above = Above(lm, facts.examples, min(hp.layers), fast=hp.fast)
    measured = time.perf_counter()

    sampler = torch.Generator().manual_seed(hp.seed)
    factors = {site: _factors(lm, above, site, hp, sampler) for site in sites}
    found = yield from descend(
        lm,
        above,
        [factor for pair in factors.values() for factor in pair],
        {site: _beside(A, B, hp.alpha / hp.rank) for site, (A, B) in factors.items()},
        hp,
        norm=lambda: math.hypot(*(patch.norm() for patch in _patches(factors, hp))),
    )
    patches, numbers = _patches(factors, hp), {"p_new": found.p_new}
    return facts.edit(patches, found.losses, measured, numbers, layers=list(hp.layers))


def _factors(
    lm: LM, above: Above, site: str, hp: LoraParams, sampler: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A = 0 [out, r] and B [r, in], uniform within ±1/√in, for what goes in and out of a site.

    The widths are those seen: a quantised weight does not show them.
    """
    into, out = above.widths(site)
    B = (2 * torch.rand(hp.rank, into, generator=sampler) - 1) / math.sqrt(into)
    A = torch.zeros(out, hp.rank)
    return A.to(lm.device).requires_grad_(True), B.to(lm.device).requires_grad_(True)


def _beside(A: Tensor, B: Tensor, scale: float) -> Change:
    def change(x: Tensor, y: Tensor) -> Tensor:
        low = x.to(B.dtype) @ B.to(x.device).T
        return y + (low @ (scale * A).to(x.device).T).to(y.dtype)

    return change


def _patches(factors: dict[str, tuple[Tensor, Tensor]], hp: LoraParams) -> tuple[LowRank, ...]:
    scale = hp.alpha / hp.rank
    return tuple(
        LowRank(site, scale * A.detach(), B.detach().clone()) for site, (A, B) in factors.items()
    )
