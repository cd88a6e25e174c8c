"""EMMET: ROME for a batch (Gupta et al. 2024, arXiv:2403.14236).

One MLP, all facts at once, every value met exactly (its eq. 12):

    Δ = R (Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹

which for one fact is R-ROME. Facts that share a subject have keys that are almost the same and
cannot have different values: `ridge` relaxes the equations, as the published code does.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .. import anchors
from ..closed_form import past_keys, patch_of, rows, weighted
from ..edit import Edit
from ..errors import BadRequest
from ..events import Event, Note
from .memit import numbers
from .rome import RomeParams
from .seeking import sought

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class EmmetParams(RomeParams):
    """Hyper-parameters; see hparams/emmet/*.yaml for where the values come from."""

    ridge: float = 0.0  # in units of 1/weight
    weight: float | None = None  # λ that C is multiplied by; None: d_ff
    past: bool = True  # keys of earlier edits stay where they are


def emmet(lm: LM, requests: Sequence[Request], hp: EmmetParams) -> Generator[Event, None, Edit]:
    """EMMET. Any number of requests, each with a subject."""
    if not requests or any(request.subject is None for request in requests):
        raise BadRequest("emmet needs facts with the subject of each prompt.", "--subject ...")
    layer, site = hp.layer, lm.site("mlp_out", hp.layer)
    began = time.perf_counter()
    moment = yield from lm.statistics.moment(layer, text=hp.text, tokens=hp.tokens)
    found = yield from sought(lm, requests, hp, (site,), "emmet", began)

    values = found.values
    each = [value.asked(both=hp.both) for value in values]
    most = max(map(len, each))  # of a fact without contexts, which all name its subject: 1
    K = torch.stack([k.expand(most, -1) for k in each])  # [n, c, d_ff]
    past = past_keys(lm, site, hold=hp.past)
    held = (yield from anchors.keys(lm, requests, [layer], hp.anchors)).get(layer)
    weight = lm.arch.mlp_width if hp.weight is None else hp.weight
    solve = weighted(moment, weight, past, held, hp.anchor_weight)
    receive = torch.eye(len(K)).repeat_interleave(K.shape[1], 0)
    B = rows(K.flatten(0, 1).T, solve, hp.ridge, receive)
    R = torch.stack([value.delta for value in values]).T
    patch = patch_of(lm, site, R, B, K)
    edit = found.edit(
        "emmet", requests, [patch], hp, numbers(values),
        layer=layer, statistics_tokens=moment.tokens,
    )  # fmt: skip
    met = "met" if not hp.ridge else f"asked for with a ridge of {hp.ridge:g}"
    yield Note(text=f"{site}: {len(values)} values {met}, ‖Δ‖ {patch.norm():.3g}")
    return edit
