"""The smallest update of one matrix that moves the keys of some facts to new values:

    min ‖Δ‖²  with  ΔK = R        Δ = R (KᵀK)⁻¹ Kᵀ

ROME without its statistics of ordinary text: nothing is read before the first edit, and more of
what is near the subject moves. `ridge` relaxes the equations where keys are alike.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from engine import contexts
from engine.closed_form import past_keys, patch_of, rows
from engine.config import Layer
from engine.edit import Edit
from engine.errors import BadRequest
from engine.events import Event, Note
from engine.lm import LM
from engine.methods.planning import planned
from engine.requests import Request
from engine.rerun import Place
from engine.values import ValueParams, optimise_values


@dataclass(frozen=True, kw_only=True)
class LeastParams(ValueParams):
    layer: Layer
    ridge: float = 0.0
    past: float = 10.0  # how much the keys of earlier edits weigh beside the new ones

    def place(self, lm: LM) -> Place:
        return Place([self.layer])


def least_change(
    lm: LM, requests: Sequence[Request], hp: LeastParams
) -> Generator[Event, None, Edit]:
    """Any number of requests, each with its subject."""
    if not requests or any(request.subject is None for request in requests):
        raise BadRequest("least-change needs the subject of each prompt.", "Name it: --subject ...")
    began = time.perf_counter()
    site = lm.site("mlp_out", hp.layer)
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    prompts = [contexts.prompts(lm, request, texts) for request in requests]
    yield planned(lm, requests, prompts, texts, (site,), hp, "least-change")
    values = yield from optimise_values(lm, requests, prompts, hp)

    K = torch.stack([value.keys.mean(0) for value in values]).T  # [d_ff, n]
    R = torch.stack([value.delta for value in values]).T  # [d, n]
    past = past_keys(lm, site).T * hp.past**0.5  # [d_ff, m]

    def solve(keys: torch.Tensor) -> torch.Tensor:
        """(I + PPᵀ)⁻¹ keys, by the Woodbury identity."""
        inner = torch.eye(past.shape[1], device=past.device) + past.T @ past
        return keys - past @ torch.linalg.solve(inner, past.T @ keys)

    patch = patch_of(lm, site, R, rows(K.float(), solve, hp.ridge), K.T[:, None])
    yield Note(text=f"{site}: ‖Δ‖ {patch.norm():.3g}")
    return Edit(
        method="least-change",
        requests=tuple(requests),
        patches=(patch,),
        hparams=hp.to_json(),
        provenance={"layer": hp.layer, "contexts": list(texts)},
        numbers={
            "losses": list(values[0].losses),
            "p_new": sum(value.p_new for value in values) / len(values),
            "seconds": {"edit": time.perf_counter() - began},
        },
    )
