"""What many edits do to a model as a whole, said before it is too late.

Sequences of edits rarely fail one by one: perplexity and weight norms grow first (the collapse
that Gupta et al. 2024, arXiv:2401.07453, and others describe). Of a weight there are two, for an
update of low rank can be all that the largest keys are mapped to while ‖W + Δ‖_F has hardly grown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .arch import Arch, weight_of
from .evaluate.probes import fluency
from .patches import Dense, LowRank, Patch
from .quantised import dequantised, norm

if TYPE_CHECKING:
    from .lm import LM

PERPLEXITY = 1.10  # of the unedited model's
NORM = 1.5  # ‖W + Δ‖_F / ‖W‖_F of a site, as if Δ were orthogonal to W
SPECTRAL = 1.5  # ‖W + Δ‖₂ / ‖W‖₂ of a site
ROUNDS = 32  # of `spectral_norm`: with 16, one flat spectrum in fifty is found 1.2 % too small
_KEPT = "perplexity of the unedited model"


def warnings(lm: LM, patches: Sequence[Patch], perplexity: float) -> list[str]:
    """Sentences about a model with these patches; none where all is well.

    perplexity  on the packaged prose, with the patches; NaN: not measured
    """
    said = []
    fresh = _unedited(lm) if not math.isnan(perplexity) else math.nan
    if perplexity > PERPLEXITY * fresh:
        more = 100 * (perplexity / fresh - 1)
        said.append(f"Perplexity is {more:.0f} % above the unedited model's: {_remedy(patches)}.")
    for site, ratio in growth(lm, patches).items():
        size, which, most = math.sqrt(1 + ratio**2), "norm", NORM
        if size <= most:
            size, which, most = stretch(lm, site, patches), "spectral norm", SPECTRAL
        if size > most:
            grown = f"The weight {site} has grown to {size:.1f} times its {which}"
            said.append(f"{grown}: {_remedy(patches)}.")
    return said


def _remedy(patches: Sequence[Patch]) -> str:
    undo = "undo what can go"
    return f"solve the edits again together (resolve), or {undo}" if _resolvable(patches) else undo


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
    """Per site ‖Δ‖_F/‖W‖_F for the sum Δ of its patches; NaN where W cannot be read."""
    by_site: dict[str, list[Patch]] = {}
    for patch in patches:
        by_site.setdefault(patch.site, []).append(patch)
    found = {}
    for site, own in by_site.items():
        found[site] = _norm(own, lm.device) / norm(lm.model.get_submodule(site))
    return found


def _norm(patches: Sequence[Patch], device: torch.device) -> float:
    """‖Σ Δ‖_F of one site; of low-rank patches alone without making any matrix of its size.

    device  to compute on: patches that were stored lie on the CPU, beside fresh ones
    """
    if all(isinstance(patch, LowRank) for patch in patches):
        low = [patch for patch in patches if isinstance(patch, LowRank)]
        A = torch.cat([p.A.to(device) for p in low], dim=1)
        B = torch.cat([p.B.to(device) for p in low])
        return LowRank(low[0].site, A, B).norm()
    total = sum((patch.delta() for patch in patches[1:]), patches[0].delta())
    return float(total.norm())


def stretch(lm: LM, site: str, patches: Sequence[Patch]) -> float:
    """‖W + Δ‖₂/‖W‖₂ of a site, Δ the sum of its patches; NaN where W cannot be read."""
    module, key = lm.model.get_submodule(site), f"spectral norm of {site}"
    own = lm.kept.get(key)
    if not isinstance(own, float):
        own = lm.kept[key] = spectral_norm(module, lm.arch, ())
    return spectral_norm(module, lm.arch, [p for p in patches if p.site == site]) / own


@torch.no_grad()
def spectral_norm(module: nn.Module, arch: Arch, patches: Sequence[Patch]) -> float:
    """‖W + Δ‖₂ of a linear map, quantised or not; NaN for a kind of weight that is not known.

    Power iteration whose vectors are all kept and the best of their span taken (Lanczos): it comes
    from below, to a percent in a flat spectrum and much nearer where few directions stand out. Of
    low-rank patches only the factors are multiplied.
    """
    from accelerate.utils import align_module_device

    with align_module_device(module):  # an offloaded weight is fetched
        W = _readable(module, arch)
        if W is None:
            return math.nan
        for patch in patches:
            if isinstance(patch, Dense):
                W = W + patch.matrix.to(W)
        low = [patch for patch in patches if isinstance(patch, LowRank)]
        A = torch.cat([W.new_empty(len(W), 0), *(p.A.to(W) for p in low)], dim=1)  # [out, r]
        B = torch.cat([W.new_empty(0, W.shape[1]), *(p.B.to(W) for p in low)])  # [r, in]
        v = torch.randn(W.shape[1], generator=torch.Generator().manual_seed(0)).to(W)
        kept = functional.normalize(v, dim=0)[None]  # [rounds, in]
        for _ in range(min(ROUNDS, *W.shape)):
            u = W @ kept[-1] + A @ (B @ kept[-1])
            v = u @ W + (u @ A) @ B
            v = functional.normalize(v - (kept @ v) @ kept, dim=0)
            kept = torch.cat([kept, v[None]])
        V = torch.linalg.qr(kept.T.cpu())[0].T.to(W)  # on the CPU: not every device factors
        return float(torch.linalg.matrix_norm((V @ W.T + (V @ B.T) @ A.T).cpu(), ord=2))


def _readable(module: nn.Module, arch: Arch) -> Tensor | None:
    """W [out, in] float32. Quantised weights are stored so, those of Conv1D families too."""
    weight = dequantised(module)
    if weight is None or weight.is_meta:
        return None
    return (weight_of(module, arch) if weight is module.weight else weight).float()
