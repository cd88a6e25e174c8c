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

from .. import anchors, contexts
from ..closed_form import past_keys, rows, solved, weighted
from ..edit import Edit
from ..errors import BadRequest
from ..events import Event, Note
from ..values import optimise_values
from .memit import numbers
from .planning import planned
from .rome import RomeParams

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
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    measured = time.perf_counter()
    prompts = [contexts.prompts(lm, request, texts) for request in requests]
    yield planned(lm, requests, prompts, texts, (site,), hp, "emmet")
    values = yield from optimise_values(lm, requests, prompts, hp)
    optimised = time.perf_counter()

    K = torch.stack([value.asked(both=hp.both) for value in values])  # [n, c, d_ff]
    past = past_keys(lm, site, hold=hp.past)
    held = anchors.keys_of_all(lm, requests, layer, hp.anchors)
    weight = lm.arch.mlp_width if hp.weight is None else hp.weight
    solve = weighted(moment, weight, past, held, hp.anchor_weight)
    owners = [fact for fact, own in enumerate(K) for _ in own]
    B = rows(K.flatten(0, 1).T, solve, hp.ridge, owners)
    R = torch.stack([value.delta for value in values]).T
    patch = solved(lm, site, R, B, K)
    ended = time.perf_counter()
    yield Note(text=f"{site}: {len(values)} values met, ‖Δ‖ {patch.norm():.3g}")
    return Edit(
        method="emmet",
        requests=tuple(requests),
        patches=(patch,),
        hparams=hp.to_json(),
        provenance={"layer": layer, "contexts": list(texts), "statistics_tokens": moment.tokens},
        numbers=numbers(values)
        | {
            "seconds": {
                "setup": measured - began,
                "optimise": optimised - measured,
                "solve": ended - optimised,
            },
        },
    )
