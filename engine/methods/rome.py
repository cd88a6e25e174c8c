"""Rank-one model editing: ROME as published, and R-ROME, the default.

An MLP's down-projection W is read as a linear memory of keys and values. The edit is the
smallest change, in the norm weighted by the keys of ordinary text, that maps k* to v*:

    Δ = (v* − W k*) (C⁻¹k*)ᵀ / (k*ᵀ C⁻¹ k*)                   Meng et al. 2022, eq. 2

k* is the key at the subject's last token, averaged over contexts. ROME averages it in C⁻¹k*
but takes the bare prompt's key in the denominator and in W k*, which can make the
denominator tiny; R-ROME (Gupta et al. 2024) uses the one averaged key k̄ everywhere, so that
(W + Δ) k̄ = v* exactly.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .. import anchors, contexts
from ..config import HParams, Layer
from ..edit import Edit
from ..errors import BadRequest, EditFailed
from ..events import EditPlanned, Event, Note
from ..patches import LowRank
from ..tokens import last_token, target_ids
from ..values import Value, optimise_value

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class RomeParams(HParams):
    """Hyper-parameters; see hparams/rome/*.yaml for where the values come from."""

    layer: Layer  # 0-based
    contexts: int = 10  # generated texts put before the prompt, besides the bare prompt
    steps: int = 20
    lr: float | None = None  # Adam's rate; None: relative_lr
    relative_lr: float = 0.5  # lr · √d as a multiple of ‖m₀‖
    clamp: float = 4.0  # ‖δ‖ ≤ clamp · ‖m₀‖
    kl: float = 0.0625  # κ
    decay: float = 0.5  # ω
    stop_loss: float = 0.05  # stop below this loss
    stop_probability: float = 1.0  # or when the target is at least this likely (1: never)
    text: str = "wikipedia-vital"  # what C is measured on: a text asset or a file
    tokens: int = 60_000  # how much of it
    anchors: int = 0  # other names whose keys stay where they are: see engine/anchors.py
    anchor_weight: float = 1000.0  # β
    fast: bool = True  # recompute only what δ can reach
    seed: int = 0  # of the contexts


def r_rome(lm: LM, requests: Sequence[Request], hp: RomeParams) -> Generator[Event, None, Edit]:
    """R-ROME. One request with a subject."""
    return (yield from _edit(lm, requests, hp, "r-rome"))


def rome(lm: LM, requests: Sequence[Request], hp: RomeParams) -> Generator[Event, None, Edit]:
    """ROME as published. One request with a subject."""
    return (yield from _edit(lm, requests, hp, "rome"))


def rank_one(u: Tensor, k: Tensor, residual: Tensor, site: str) -> tuple[LowRank, float]:
    """Δ = residual uᵀ / (kᵀu), with u = C⁻¹k*: see above. Also the denominator kᵀu.

    u, k [d_ff]; residual [d]. Raises EditFailed where the denominator is not positive: the
    update would be unbounded ("disabling edits").
    """
    denominator = float(k @ u)
    if denominator <= 0:
        raise EditFailed(
            f"the denominator k*ᵀC⁻¹k* is {denominator:.3g}: this update would wreck the model.",
            "R-ROME does not have this weakness: --method r-rome.",
        )
    return LowRank(site, residual[:, None].clone(), u[None] / denominator), denominator


def _edit(
    lm: LM, requests: Sequence[Request], hp: RomeParams, name: str
) -> Generator[Event, None, Edit]:
    if len(requests) != 1:
        raise BadRequest(f"{name} edits one fact at a time, not {len(requests)}.")
    request = requests[0]
    if request.subject is None:
        raise BadRequest(f"{name} needs the subject of the prompt.", "Name it: --subject ...")
    layer, site = hp.layer, lm.site("mlp_out", hp.layer)

    began = time.perf_counter()
    moment = yield from lm.statistics.moment(layer, text=hp.text, tokens=hp.tokens)
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    measured = time.perf_counter()
    prompts = contexts.prompts(lm, request, texts)
    yield _planned(lm, request, prompts[0].text, texts, site, hp, name)
    value = yield from optimise_value(lm, request, prompts, layer, hp)
    optimised = time.perf_counter()

    key = value.key if name == "r-rome" else value.bare
    held = anchors.keys(lm, request, layer, hp.anchors)
    u = moment.solve(value.key, held, hp.anchor_weight)  # C⁻¹k̄
    patch, denominator = rank_one(u, key, value.delta, site)
    solved = time.perf_counter()
    numbers = _numbers(value, denominator)
    yield Note(text=_told(site, value, denominator))
    return Edit(
        method=name,
        requests=(request,),
        patches=(patch,),
        hparams=hp.to_json(),
        provenance={"layer": layer, "contexts": list(texts), "statistics_tokens": moment.tokens},
        numbers={
            **numbers,
            "losses": list(value.losses),
            "seconds": {
                "setup": measured - began,
                "optimise": optimised - measured,
                "solve": solved - optimised,
            },
        },
    )


def _planned(
    lm: LM,
    request: Request,
    shown: str,
    texts: tuple[str, ...],
    site: str,
    hp: RomeParams,
    name: str,
) -> EditPlanned:
    assert request.subject is not None
    prompt = lm.prompt(request.prompt, chat=request.chat)
    at = last_token(prompt, request.subject)
    return EditPlanned(
        edit="",
        method=name,
        prompt=shown,
        subject=request.subject,
        target=lm.tokenizer.decode(target_ids(lm.tokenizer, prompt, request.target_new)),
        old=request.target_old,
        sites=(site,),
        steps=hp.steps,
        subject_token=lm.tokenizer.decode([prompt.ids[at]]),
        subject_position=at,
        contexts=texts,
        hparams=hp.to_json(),
    )


def _numbers(value: Value, denominator: float) -> dict[str, float]:
    return {
        "delta_norm": float(value.delta.norm()),
        "value_before": float(value.output.norm()),
        "value_after": float((value.output + value.delta).norm()),
        "denominator": denominator,
        "key_norm": float(value.key.norm()),
        "steps": float(len(value.losses)),
        "p_new": value.p_new,
    }


def _told(site: str, value: Value, denominator: float) -> str:
    n = _numbers(value, denominator)
    return (
        f"{site}: ‖δ‖ {n['delta_norm']:.2f}, ‖v‖ {n['value_before']:.2f} → {n['value_after']:.2f}, "
        f"k*ᵀC⁻¹k* {denominator:.4g}"
    )
