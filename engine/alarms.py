"""What many edits do to a model as a whole, said before it is too late.

Sequences of edits rarely fail one by one: perplexity and weight norms grow first (the collapse
that Gupta et al. 2024, arXiv:2401.07453, and others describe).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .evaluate.probes import fluency
from .patches import LowRank, Patch
from .quantised import norm

if TYPE_CHECKING:
    from .lm import LM

PERPLEXITY = 1.10  # of the unedited model's
NORM = 1.5  # ‖W + Δ‖ / ‖W‖ of a site, as if Δ were orthogonal to W
_KEPT = "perplexity of the unedited model"


def warnings(lm: LM, patches: Sequence[Patch], perplexity: float) -> list[str]:
    """Sentences about a model with these patches; none where all is well.

    perplexity  on the packaged prose, with the patches; NaN: not measured
    """
    said = []
    fresh = _unedited(lm) if not math.isnan(perplexity) else math.nan
    if perplexity > PERPLEXITY * fresh:
        more = 100 * (perplexity / fresh - 1)
        remedy = "undo what can go"
        if _resolvable(patches):
            remedy = f"solve the edits again together (resolve), or {remedy}"
        said.append(f"Perplexity is {more:.0f} % above the unedited model's: {remedy}.")
    for site, ratio in growth(lm, patches).items():
        size = math.sqrt(1 + ratio**2)
        if size > NORM:
            said.append(f"The weight {site} has grown to {size:.1f} times its norm.")
    return said


def _resolvable(patches: Sequence[Patch]) -> bool:
    """Whether one site has several that were solved one after the other: see engine/resolve.py."""
    sites = [p.site for p in patches if isinstance(p, LowRank) and p.moves is not None]
    return len(set(sites)) < len(sites)


def _unedited(lm: LM) -> float:
    found = lm.kept.get(_KEPT)
    if not isinstance(found, float):
        with lm.bare():
            found = lm.kept[_KEPT] = fluency(lm)
    return found


def growth(lm: LM, patches: Sequence[Patch]) -> dict[str, float]:
    """Per site ‖Δ‖/‖W‖ for the sum Δ of its patches; NaN where W cannot be read."""
    by_site: dict[str, list[Patch]] = {}
    for patch in patches:
        by_site.setdefault(patch.site, []).append(patch)
    found = {}
    for site, own in by_site.items():
        found[site] = _norm(own) / norm(lm.model.get_submodule(site))
    return found


def _norm(patches: Sequence[Patch]) -> float:
    """‖Σ Δ‖_F of one site; of low-rank patches alone without making any matrix of its size."""
    if all(isinstance(patch, LowRank) for patch in patches):
        low = [patch for patch in patches if isinstance(patch, LowRank)]
        A, B = torch.cat([p.A for p in low], dim=1), torch.cat([p.B for p in low])
        return LowRank(low[0].site, A, B).norm()
    total = sum((patch.delta() for patch in patches[1:]), patches[0].delta())
    return float(total.norm())
