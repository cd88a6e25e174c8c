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

from .. import contexts
from ..above import Above, examples
from ..config import Layer
from ..descent import DescentParams, descend
from ..edit import Edit
from ..errors import BadRequest
from ..events import Event
from ..hooks import Change
from ..patches import LowRank
from .planning import planned

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
    if not requests:
        raise BadRequest("lora needs a fact to edit.")
    began = time.perf_counter()
    sites = tuple(
        site for layer in hp.layers for part in hp.parts for site in lm.arch.sites(part, layer)
    )
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    prompts = [contexts.prompts(lm, request, texts) for request in requests]
    yield planned(lm, requests, prompts, texts, sites, hp, "lora")
    given = examples(lm, requests, prompts, end=hp.end)
    above = Above(lm, given, min(hp.layers), fast=hp.fast)
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
    return Edit(
        method="lora",
        requests=tuple(requests),
        patches=_patches(factors, hp),
        hparams=hp.to_json(),
        provenance={"layers": list(hp.layers), "contexts": list(texts)},
        numbers={
            "p_new": found.p_new,
            "steps": float(len(found.losses)),
            "losses": list(found.losses),
            "seconds": {"setup": measured - began, "optimise": time.perf_counter() - measured},
        },
    )


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
