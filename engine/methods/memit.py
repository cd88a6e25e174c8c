"""MEMIT: many facts at once, spread over a range of layers (Meng et al. 2023, arXiv:2210.07229).

For each fact z = h + δ at the output of the last edited block; then for each layer in turn, with
keys K and residuals R of all facts (eq. 14 and 20, algorithm 1),

    Δ = R Kᵀ (λC + KKᵀ)⁻¹

C is the second moment of the layer's keys on ordinary text, λ how many such keys weigh as much
as the facts. Keys of earlier edits count beside C, without which a sequence of edits overwrites
itself (`past`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .. import anchors
from ..closed_form import past_keys, rows, weighted
from ..edit import Edit
from ..errors import BadRequest
from ..events import Event, Note
from ..patches import LowRank
from ..spreading import SpreadParams, spread
from ..values import Value
from .seeking import sought

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request
    from ..statistics import Moment


@dataclass(frozen=True, kw_only=True)
class MemitParams(SpreadParams):
    """Hyper-parameters; see hparams/memit/*.yaml for where the values come from."""

    weight: float | None = None  # λ; None: relative_weight · d_ff
    relative_weight: float = 1.0


def memit(lm: LM, requests: Sequence[Request], hp: MemitParams) -> Generator[Event, None, Edit]:
    """MEMIT. Any number of requests, each with a subject."""
    return (yield from by_least_squares(lm, requests, hp, "memit"))


def by_least_squares(
    lm: LM, requests: Sequence[Request], hp: MemitParams, name: str
) -> Generator[Event, None, Edit]:
    """Per layer Kᵀ(λC + KKᵀ)⁻¹, with past keys and anchors beside C: MEMIT, and PMET."""
    began = time.perf_counter()
    moments = yield from lm.statistics.moments(hp.layers, text=hp.text, tokens=hp.tokens)
    weight = hp.relative_weight * lm.arch.mlp_width if hp.weight is None else hp.weight

    def share(layer: int, K: Tensor, held: Tensor | None) -> Tensor:
        past = past_keys(lm, lm.site("mlp_out", layer), hold=hp.past)
        return rows(K, weighted(moments[layer], weight, past, held, hp.anchor_weight))

    return (yield from inserted(lm, requests, hp, name, share, moments, began))


Share = Callable[[int, Tensor, Tensor | None], Tensor]  # as spreading.Rows, and the anchors' keys


def inserted(
    lm: LM,
    requests: Sequence[Request],
    hp: SpreadParams,
    name: str,
    share: Share,
    moments: dict[int, Moment],
    began: float,
) -> Generator[Event, None, Edit]:
    """Values, then an update per layer: what MEMIT, AlphaEdit and PMET share.

    share  the method's closed form: see `spreading.Rows`
    began  when setting up began, as of time.perf_counter()
    """
    if not requests:
        raise BadRequest(f"{name} needs a fact to edit.")
    sites = tuple(lm.site("mlp_out", layer) for layer in hp.layers)
    found = yield from sought(lm, requests, hp, sites, name, began)
    held = yield from anchors.keys(lm, requests, hp.layers, hp.anchors)
    patches = yield from spread(
        lm, requests, found.prompts, found.values, hp,
        lambda layer, K: share(layer, K, held.pop(layer, None)),
    )  # fmt: skip
    tokens = {str(layer): moment.tokens for layer, moment in moments.items()}
    edit = found.edit(
        name, requests, patches, hp, numbers(found.values),
        layers=list(hp.layers), statistics_tokens=tokens,
    )  # fmt: skip
    yield Note(text=_told(found.values, patches))
    return edit


def numbers(found: Sequence[Value]) -> dict[str, object]:
    """What is kept of the values of several facts: means; steps and losses of the longest."""
    n = len(found)
    longest = max(found, key=lambda value: len(value.losses))
    return {
        "facts": n,
        "delta_norm": sum(float(v.delta.norm()) for v in found) / n,
        "value_before": sum(float(v.outputs[0].norm()) for v in found) / n,
        "value_after": sum(float((v.outputs[0] + v.delta).norm()) for v in found) / n,
        "steps": float(len(longest.losses)),
        "p_new": sum(v.p_new for v in found) / n,
        "losses": list(longest.losses),
    }


def _told(found: Sequence[Value], patches: Sequence[LowRank]) -> str:
    n = numbers(found)
    norms = ", ".join(f"{patch.site}: ‖Δ‖ {patch.norm():.3g}" for patch in patches)
    return (
        f"‖δ‖ {n['delta_norm']:.2f}, ‖z‖ {n['value_before']:.2f} → {n['value_after']:.2f}; {norms}"
    )
