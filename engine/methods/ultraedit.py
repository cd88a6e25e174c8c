"""UltraEdit: one backward pass, a normalisation that learns for life, a least-squares update.

For the positions that predict the target's tokens, each module's inputs H [m, in] and the loss's
gradients G [m, out] at its outputs are taken from one pass. With the running mean and deviation
of all rows [h; g] ever edited,

    v_i = −η ‖ĥ_i‖² ĝ_i,        Δᵀ = (HᵀH + I)⁻¹ Hᵀ V = Hᵀ (HHᵀ + I)⁻¹ V

(Gu et al. 2026, arXiv:2505.14679): no subject, no optimisation, and meant for edits by the
thousand. The dual form, of m equations, is used. What an edit adds to the statistics goes with
its patch, so that undo takes it away exactly; before the first edit they are those of ordinary
text (ours: the published code begins with nothing, which one edit at a time cannot use).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import contexts
from ..above import Above, examples
from ..config import HParams, Layer
from ..edit import Edit
from ..errors import BadRequest, DivergedLoss
from ..events import EditStep, Event, Finding
from ..patches import LowRank, kept_of
from ..running import Running, felt, of_text
from .planning import planned

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class UltraEditParams(HParams):
    """Hyper-parameters; see hparams/ultraedit/*.yaml for where the values come from."""

    gate: tuple[Layer, ...] = ()  # layers whose gate projection is edited; of gated MLPs
    up: tuple[Layer, ...] = ()  # ... up projection
    down: tuple[Layer, ...] = ()  # ... down projection
    lr: float = 1e-6  # η
    ridge: float = 1.0  # of the least squares
    text: str = "wikipedia-vital"  # what the statistics begin with: a text asset or a file
    passages: int = 64  # how much of it; 0: nothing
    end: bool = False  # statements too: the target is to end the text
    fast: bool = True

    def __post_init__(self) -> None:
        if not (self.gate or self.up or self.down):
            raise ValueError("'gate', 'up' and 'down' name no layer to edit.")


def ultraedit(
    lm: LM, requests: Sequence[Request], hp: UltraEditParams
) -> Generator[Event, None, Edit]:
    """UltraEdit. Any number of requests; the paper's turns are of a hundred."""
    if not requests:
        raise BadRequest("ultraedit needs a fact to edit.")
    began = time.perf_counter()
    sites = _sites(lm, hp)
    lowest = min((*hp.gate, *hp.up, *hp.down))
    begun = yield from of_text(lm, sites, lowest, text=hp.text, passages=hp.passages)
    prompts = [contexts.prompts(lm, request, ())[:1] for request in requests]
    yield planned(lm, requests, prompts, (), sites, hp, "ultraedit")
    given = examples(lm, requests, prompts, end=hp.end)
    measured = time.perf_counter()

    above = Above(lm, given, lowest, fast=hp.fast)
    losses, seen, old = felt(lm, above, sites)
    loss = float(losses.mean())
    p_new = float((-losses).exp().mean())
    yield EditStep(
        step=1, of=1, loss=loss, parts={"nll": loss}, p_new=p_new, p_old=old, delta_norm=0.0
    )
    patches = []
    for site in sites:
        H, G = seen[site]
        rows = torch.cat([H, G], dim=1)  # [m, in + out]
        mine = Running.of(rows)
        lifelong = mine.with_(begun[site]) if site in begun else mine
        for count, mean, spread in kept_of(lm.patches, site, "count", "mean", "spread"):
            lifelong = lifelong.with_(Running(int(count), mean, spread))
        patches.append(_update(site, H, G, lifelong, mine, hp))
    yield Finding(
        name="statistics",
        title="Gradients of this edit",
        text=f"in {len(sites)} modules, {len(rows)} rows; normalised by {lifelong.count} rows",
        rows=tuple({"label": site, "value": float(seen[site][1].norm())} for site in sites),
    )
    return Edit(
        method="ultraedit",
        requests=tuple(requests),
        patches=tuple(patches),
        hparams=hp.to_json(),
        provenance={"sites": list(sites)},
        numbers={
            "rows": float(lifelong.count),
            "p_new": p_new,
            "steps": 1.0,
            "losses": [loss],
            "seconds": {"setup": measured - began, "optimise": time.perf_counter() - measured},
        },
    )


def _sites(lm: LM, hp: UltraEditParams) -> tuple[str, ...]:
    """Raises BadRequest where a gate is named that the model has not."""
    if hp.gate and not lm.arch.gated:
        raise BadRequest(
            f"{lm.arch.model_type} has no gate projections.", "Name others: --hp gate= --hp up=..."
        )
    gates = (lm.arch.sites("mlp_in", layer)[0] for layer in hp.gate)
    ups = (lm.site("mlp_in", layer) for layer in hp.up)
    downs = (lm.site("mlp_out", layer) for layer in hp.down)
    return (*gates, *ups, *downs)


def _update(
    site: str, H: Tensor, G: Tensor, lifelong: Running, mine: Running, hp: UltraEditParams
) -> LowRank:
    """Δ = Vᵀ (HHᵀ + ρI)⁻¹ H as A = Vᵀ and B. Raises DivergedLoss."""
    into = H.shape[1]
    normal = lifelong.normalised(torch.cat([H, G], dim=1))
    h, g = normal[:, :into], normal[:, into:]
    V = -hp.lr * h.square().sum(1, keepdim=True) * g  # [m, out]
    gram = (H @ H.T).double()
    gram.diagonal().add_(hp.ridge)
    B = torch.linalg.solve(gram, H.double()).float()  # [m, in]
    if not (bool(V.isfinite().all()) and bool(B.isfinite().all())):
        raise DivergedLoss(
            f"the update of {site} is not finite; the model is as it was.",
            "Lower the rate (--hp lr=...), or load the model in float32 (--dtype float32).",
        )
    kept = {"count": torch.tensor(mine.count), "mean": mine.mean, "spread": mine.spread}
    return LowRank(site, V.T.contiguous(), B, kept=kept)
