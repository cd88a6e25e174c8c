"""How an edit changes the forward pass. Stored weights are never written.

All low-rank patches of a site run as one pair (A, B), concatenated in ledger order:
`y = Wx + A(Bx)`, in float32, cast once to the dtype of the site's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .hooks import Change


@dataclass(frozen=True, eq=False)
class LowRank:
    """`Wx + A(Bx)` at one site.

    site  module name of a linear map (Linear or Conv1D)
    A     [out, r] float32; of a closed-form edit, the residuals of r facts
    B     [r, in]  float32
    keys  [r, c, in] float32: the c keys at which each fact's residual is asked for, where the
          update was solved for (engine/closed_form.py); later edits and `resolve` use them
    """

    site: str
    A: Tensor
    B: Tensor
    keys: Tensor | None = None

    kind = "low-rank"

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[1] != self.B.shape[0]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} do not chain")
        wanted = (self.B.shape[0], self.B.shape[1])
        if self.keys is not None and (self.keys.shape[0], self.keys.shape[-1]) != wanted:
            raise ValueError(f"keys {tuple(self.keys.shape)} do not fit B {tuple(self.B.shape)}")

    @property
    def rank(self) -> int:
        return self.A.shape[1]

    def norm(self) -> float:
        """‖AB‖_F, from the r × r Gram matrices."""
        gram = (self.A.T @ self.A) @ (self.B @ self.B.T)
        return float(gram.diagonal().sum().clamp_min(0).sqrt())

    def tensors(self) -> dict[str, Tensor]:
        kept = {} if self.keys is None else {"keys": self.keys}
        return {"A": self.A, "B": self.B, **kept}

    @classmethod
    def from_tensors(cls, site: str, tensors: dict[str, Tensor]) -> LowRank:
        return cls(site, tensors["A"], tensors["B"], tensors.get("keys"))


Patch = LowRank
KINDS: dict[str, type[Patch]] = {LowRank.kind: LowRank}


def changes(patches: Sequence[Patch], device: torch.device) -> dict[str, Change]:
    """One output change per site, for `hooks.patched`."""
    by_site: dict[str, list[Patch]] = {}
    for patch in patches:
        by_site.setdefault(patch.site, []).append(patch)
    return {site: _low_rank(group, device) for site, group in by_site.items()}


def _low_rank(patches: Sequence[LowRank], device: torch.device) -> Change:
    A = torch.cat([p.A for p in patches], dim=1).to(device, torch.float32)  # [out, r]
    B = torch.cat([p.B for p in patches], dim=0).to(device, torch.float32)  # [r, in]

    def change(x: Tensor, y: Tensor) -> Tensor:
        update = (x.to(torch.float32) @ B.to(x.device).T) @ A.to(x.device).T
        return y + update.to(y.dtype)

    return change


def describe(patch: Patch, weight_norm: float) -> dict[str, Any]:
    """What a person is told about a patch: {site, rank, norm_ratio ‖Δ‖/‖W‖}."""
    return {"site": patch.site, "rank": patch.rank, "norm_ratio": patch.norm() / weight_norm}
