"""Fine-tuning of one matrix: FT-L, and FT-M, which scores every token where it belongs.

Gradient descent on the down-projection W of a layer, the rest of the model frozen, until the
target is likely:

    FT-L   L = −(1/T) Σ_t log p(y_t | prompt)            all of them at the prompt's last position
    FT-M   L = −(1/T) Σ_t log p(y_t | prompt, y_<t)      the loss of language modelling

FT-L's loss is that of the code that the comparison of Yao et al. 2023 (arXiv:2305.13172) ran; it
is right for targets of one token and wrong for others. Meng et al. 2022 (appendix E.1) and
Zhu et al. 2020 (arXiv:2012.00363) constrain every entry of the change: |Δ| ≤ ε.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..above import Above
from ..arch import weight_of
from ..config import Layer
from ..descent import DescentParams, descend
from ..edit import Edit
from ..events import Event
from ..hooks import Change
from ..patches import Dense
from .posing import posed

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class FtParams(DescentParams):
    """Hyper-parameters; see hparams/ft-l/*.yaml and hparams/ft-m/*.yaml for their sources."""

    layers: tuple[Layer, ...]  # 0-based; of the decoder
    scored: Literal["own", "last"] = "own"  # where the target's tokens are predicted
    epsilon: float | None = None  # ε: every entry of Δ stays within ±ε; None: free
    store: Literal["float32", "bfloat16"] = "float32"  # what Δ is kept in

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise ValueError("'layers' must name a layer.")
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"'epsilon' must be above 0, not {self.epsilon!r}.")


def ft_l(lm: LM, requests: Sequence[Request], hp: FtParams) -> Generator[Event, None, Edit]:
    """FT-L. Any number of requests."""
    return (yield from _edit(lm, requests, hp, "ft-l"))


def ft_m(lm: LM, requests: Sequence[Request], hp: FtParams) -> Generator[Event, None, Edit]:
    """FT-M. Any number of requests."""
    return (yield from _edit(lm, requests, hp, "ft-m"))


def _edit(
    lm: LM, requests: Sequence[Request], hp: FtParams, name: str
) -> Generator[Event, None, Edit]:
    sites = tuple(lm.site("mlp_out", layer) for layer in hp.layers)
    facts = yield from posed(lm, requests, hp, sites, name, own=hp.scored == "own")
    above = Above(lm, facts.examples, min(hp.layers), fast=hp.fast)
    measured = time.perf_counter()

    deltas = [zeros(lm, site) for site in sites]

    def clamp() -> None:
        if hp.epsilon is not None:
            for delta in deltas:
                delta.detach().clamp_(-hp.epsilon, hp.epsilon)

    found = yield from descend(
        lm,
        above,
        deltas,
        {site: beside(delta) for site, delta in zip(sites, deltas, strict=True)},
        hp,
        norm=lambda: float(torch.stack([delta.detach().norm() for delta in deltas]).norm()),
        project=clamp,
    )
    kept = getattr(torch, hp.store)
    largest = max(float(delta.detach().abs().max()) for delta in deltas)
    return facts.edit(
        [Dense(site, delta.detach().to(kept)) for site, delta in zip(sites, deltas, strict=True)],
        found.losses,
        measured,
        {"p_new": found.p_new, "largest": largest},
        layers=list(hp.layers),
    )


def zeros(lm: LM, site: str) -> Tensor:
    """Δ = 0 [out, in] of a site, float32, to be trained. Raises UnsupportedModel (quantised)."""
    weight = weight_of(lm.model.get_submodule(site), lm.arch)
    device = lm.device if weight.is_meta else weight.device  # meta: offloaded
    return torch.zeros(weight.shape, device=device, requires_grad=True)


def beside(delta: Tensor) -> Change:
    """Wx + Δx in float32, as the patch will run it."""

    def change(x: Tensor, y: Tensor) -> Tensor:
        return y + functional.linear(x.to(delta), delta).to(y.dtype)

    return change
