"""Rank-one model editing: ROME as published, and R-ROME, the default.

An MLP's down-projection W is read as a linear memory of keys and values. The edit is the
smallest change, in the norm weighted by the keys of ordinary text, that maps k* to v*:

    Δ = (v* − W k*) (C⁻¹k*)ᵀ / (k*ᵀ C⁻¹ k*)                   Meng et al. 2022, eq. 2

k* is the key at the subject's last token, averaged over contexts. ROME averages it in C⁻¹k*
but takes the bare prompt's key in the denominator and in W k*, which can make the
denominator tiny; R-ROME (Gupta et al. 2024) uses the one averaged key k̄ everywhere, so that
(W + Δ) k̄ = v* exactly. The default preset also makes it exact at the bare prompt (`both`).

In an encoder-decoder the subject is read by the encoder, and W is a matrix of the encoder's: what
the papers do carried over, not done in any of them, and experimental.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import anchors
from ..closed_form import patch_of
from ..config import Layer
from ..edit import Edit
from ..errors import BadRequest, EditFailed
from ..events import Event, Note
from ..patches import Patch
from ..quantised import norm
from ..rerun import Place
from ..values import Value, ValueParams
from .seeking import sought

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request

LONG = 0.2  # ‖Δ‖_F/‖W‖_F of one edit; ordinary ones on the default model: about 0.1


@dataclass(frozen=True, kw_only=True)
class RomeParams(ValueParams):
    """Hyper-parameters; see hparams/rome/*.yaml for where the values come from."""

    layer: Layer  # 0-based
    both: bool = False  # R-ROME: exact at the bare prompt too, not only at the mean key
    anchors: int = 0  # other names whose keys stay where they are: see engine/anchors.py
    anchor_weight: float = 1000.0  # β

    def place(self, lm: LM) -> Place:
        return Place([self.layer])


def r_rome(lm: LM, requests: Sequence[Request], hp: RomeParams) -> Generator[Event, None, Edit]:
    """R-ROME. One request with a subject."""
    return (yield from _edit(lm, requests, hp, "r-rome"))


def rome(lm: LM, requests: Sequence[Request], hp: RomeParams) -> Generator[Event, None, Edit]:
    """ROME as published. One request with a subject."""
    return (yield from _edit(lm, requests, hp, "rome"))


def direction(
    name: str, value: Value, solve: Callable[[Tensor], Tensor], *, both: bool
) -> tuple[Tensor, float]:
    """The row B [d_ff] of the update Δ = δ B: how much of δ each key receives.

    ROME      u / (k_bareᵀu)       with u = C⁻¹k̄
    R-ROME    u / (k̄ᵀu)
    both      the smallest row, in the norm weighted by C, with B k = 1 at the bare prompt's
              key and at the mean of the contexts': C⁻¹K (KᵀC⁻¹K)⁻¹ 1. A subject at the very
              beginning has a key unlike any other, which the mean can miss. (EMMET's equality
              constraint, Gupta et al. 2024b, with one residual for the two keys.)

    Also returns the denominator (for both: 1 / 1ᵀ(KᵀC⁻¹K)⁻¹1, which it is for one key).
    Raises EditFailed where it is not positive: the update would be unbounded ("disabling
    edits").
    """
    bare, mean = value.keys[0], value.keys.mean(0)
    asked = value.asked(both=both and name == "r-rome")
    if len(asked) > 1:
        K = asked.T.contiguous()  # [d_ff, 2]
        U = solve(K)
        gram = (K.to(U).T @ U).double()
        ones = torch.ones(2, 1, dtype=gram.dtype)
        weights = torch.linalg.lstsq(gram.cpu(), ones).solution  # equal keys: the shorter one
        total = float(weights.sum())
        row, denominator = (U @ weights.to(U))[:, 0], 1 / total if total else 0.0
    else:
        u = solve(mean[:, None])[:, 0]
        denominator = float((bare if name == "rome" else mean).to(u) @ u)
        row = u / denominator
    if denominator <= 0:
        raise EditFailed(
            f"the denominator k*ᵀC⁻¹k* is {denominator:.3g}: this update would wreck the model.",
            "R-ROME does not have this weakness: --method r-rome.",
        )
    return row, denominator


def _edit(
    lm: LM, requests: Sequence[Request], hp: RomeParams, name: str
) -> Generator[Event, None, Edit]:
    if len(requests) != 1:
        raise BadRequest(f"{name} edits one fact at a time, not {len(requests)}.")
    request = requests[0]
    if request.subject is None:
        raise BadRequest(f"{name} needs the subject of the prompt.", "Name it: --subject ...")
    layer, site = hp.layer, lm.subject_site("mlp_out", hp.layer)

    began = time.perf_counter()
    moment = yield from lm.statistics.moment(layer, text=hp.text, tokens=hp.tokens)
    found = yield from sought(lm, [request], hp, (site,), name, began)

    (value,) = found.values
    held = (yield from anchors.keys(lm, [request], [layer], hp.anchors)).get(layer)
    row, denominator = direction(
        name, value, lambda K: moment.solve(K, held, hp.anchor_weight), both=hp.both
    )
    asked = value.asked(both=hp.both and name == "r-rome")
    patch = patch_of(lm, site, value.delta[:, None], row[None], asked[None])
    numbers = {**_numbers(value, denominator), "losses": list(value.losses)}
    edit = found.edit(
        name, [request], [patch], hp, numbers, layer=layer, statistics_tokens=moment.tokens
    )
    yield Note(text=_told(site, value, denominator))
    if warning := _too_long(lm, patch):
        yield Note(text=warning)
    return edit


def _too_long(lm: LM, patch: Patch) -> str:
    """What is said of an update that is long beside its weight; "" for one that is not."""
    update, weight = patch.norm(), norm(lm.model.get_submodule(patch.site))
    if not update > LONG * weight:  # NaN: a weight that cannot be read
        return ""
    return (
        f"the update of {patch.site} is long: its norm is {update:.3g}, the weight's "
        f"{weight:.3g}. Beyond {LONG:g} of it other answers may suffer: ask for some, or undo"
    )


def _numbers(value: Value, denominator: float) -> dict[str, float]:
    return {
        "delta_norm": float(value.delta.norm()),
        "value_before": float(value.output.norm()),
        "value_after": float((value.output + value.delta).norm()),
        "denominator": denominator,
        "key_norm": float(value.keys.mean(0).norm()),
        "steps": float(len(value.losses)),
        "p_new": value.p_new,
    }


def _told(site: str, value: Value, denominator: float) -> str:
    n = _numbers(value, denominator)
    return (
        f"{site}: ‖δ‖ {n['delta_norm']:.2f}, ‖v‖ {n['value_before']:.2f} → {n['value_after']:.2f}, "
        f"k*ᵀC⁻¹k* {denominator:.4g}"
    )
