"""How an edit changes the forward pass. Stored weights are never written.

All low-rank patches of a site run as one pair (A, B), concatenated in ledger order, and all
dense ones as one matrix Δ, their sum: `y = Wx + A(Bx) + Δx`, in float32, cast once to the dtype
of the site's output.

A kind of patch declares in `exports` which formats outside this program can hold what it does:
"hf" (a sum with the site's weight, which `delta` gives) and "lora" (the factors A and B of that
sum). A kind that declares nothing is refused by name when a model is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .hooks import Change


@dataclass(frozen=True, eq=False)
class LowRank:
    """`Wx + A(Bx)` at one site.

    site  module name of a linear map (Linear or Conv1D)
    A     [out, r] float32; of a closed-form edit, the residuals of r facts
    B     [r, in]  float32
    keys  [r, c, in] float32: the c keys at which each fact's residual is asked for, where the
          update was solved for (engine/closed_form.py); later edits and `resolve` use them
    moves [out, r] float32: by how much each fact wants its keys moved from where the unedited map
          puts them; A is what the edits before this one had left of that
    kept  what the method wants to find again while this is active: see `kept_of`
    """

    site: str
    A: Tensor
    B: Tensor
    keys: Tensor | None = None
    moves: Tensor | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    kind = "low-rank"
    exports: ClassVar[frozenset[str]] = frozenset({"hf", "lora"})

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[1] != self.B.shape[0]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} do not chain")
        wanted = (self.B.shape[0], self.B.shape[1])
        if self.keys is not None and (self.keys.shape[0], self.keys.shape[-1]) != wanted:
            raise ValueError(f"keys {tuple(self.keys.shape)} do not fit B {tuple(self.B.shape)}")
        if self.moves is not None and self.moves.shape != self.A.shape:
            raise ValueError(f"moves {tuple(self.moves.shape)} do not fit A {tuple(self.A.shape)}")

    @property
    def rank(self) -> int:
        return self.A.shape[1]

    def norm(self) -> float:
        """‖AB‖_F, from the r × r Gram matrices."""
        squared = (self.A.T @ self.A * (self.B @ self.B.T)).sum()
        return float(squared.clamp_min(0).sqrt())

    def moved(self, keys: Tensor) -> Tensor:
        """Δk [..., out] for keys [..., in]."""
        return (keys @ self.B.to(keys).mT) @ self.A.to(keys).mT

    def delta(self) -> Tensor:
        """Δ = AB [out, in], what it adds to the weight; float64 on the CPU."""
        return self.A.cpu().double() @ self.B.cpu().double()

    def tensors(self) -> dict[str, Tensor]:
        solved = {"keys": self.keys, "moves": self.moves}
        found = {name: tensor for name, tensor in solved.items() if tensor is not None}
        return {"A": self.A, "B": self.B, **found, **_stored(self.kept)}

    @classmethod
    def from_tensors(cls, site: str, tensors: dict[str, Tensor]) -> LowRank:
        solved = (tensors.get("keys"), tensors.get("moves"))
        return cls(site, tensors["A"], tensors["B"], *solved, _restored(tensors))


@dataclass(frozen=True, eq=False)
class Dense:
    """`Wx + Δx` at one site: what gradient descent on a whole matrix leaves.

    site    module name of a linear map (Linear or Conv1D)
    matrix  [out, in] Δ; float32, or bfloat16 for half the memory. It runs in float32 either way.
    kept    what the method wants to find again while this is active: see `kept_of`
    """

    site: str
    matrix: Tensor
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    kind = "dense"
    exports: ClassVar[frozenset[str]] = frozenset({"hf"})

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or not self.matrix.is_floating_point():
            raise ValueError(
                f"{self.matrix.dtype} {tuple(self.matrix.shape)} is not a matrix of real numbers"
            )

    @property
    def rank(self) -> int:
        """The highest that it can have."""
        return min(self.matrix.shape)

    def norm(self) -> float:
        """‖Δ‖_F"""
        return float(self.matrix.float().norm())

    def moved(self, keys: Tensor) -> Tensor:
        """Δk [..., out] for keys [..., in]."""
        return keys @ self.matrix.to(keys).mT

    def delta(self) -> Tensor:
        """Δ [out, in], what it adds to the weight; float64 on the CPU."""
        return self.matrix.cpu().double()

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.matrix, **_stored(self.kept)}

    @classmethod
    def from_tensors(cls, site: str, tensors: dict[str, Tensor]) -> Dense:
        return cls(site, tensors["delta"], _restored(tensors))


Patch = LowRank | Dense
KINDS: dict[str, type[LowRank] | type[Dense]] = {LowRank.kind: LowRank, Dense.kind: Dense}


def changes(patches: Sequence[Patch], device: torch.device) -> dict[str, Change]:
    """One output change per site, for `hooks.patched`."""
    by_site: dict[str, list[Patch]] = {}
    for patch in patches:
        by_site.setdefault(patch.site, []).append(patch)
    return {site: _change(group, device) for site, group in by_site.items()}


def _change(patches: Sequence[Patch], device: torch.device) -> Change:
    factors = [p for p in patches if isinstance(p, LowRank)]
    matrices = [p for p in patches if isinstance(p, Dense)]
    terms: list[Callable[[Tensor], Tensor]] = []
    if factors:
        terms.append(_low_rank(factors, device))
    if matrices:
        terms.append(_dense(matrices, device))

    def change(x: Tensor, y: Tensor) -> Tensor:
        x = x.to(torch.float32)
        update = terms[0](x)
        for term in terms[1:]:
            update = update + term(x)
        return y + update.to(y.dtype)

    return change


def _low_rank(patches: Sequence[LowRank], device: torch.device) -> Callable[[Tensor], Tensor]:
    # One by one: those read from a session are on the CPU, those just made on the device.
    A = torch.cat([p.A.to(device, torch.float32) for p in patches], dim=1)  # [out, r]
    B = torch.cat([p.B.to(device, torch.float32) for p in patches], dim=0)  # [r, in]
    return lambda x: (x @ B.to(x.device).T) @ A.to(x.device).T


def _dense(patches: Sequence[Dense], device: torch.device) -> Callable[[Tensor], Tensor]:
    total = patches[0].matrix.to(device, torch.float32)  # [out, in]
    if len(patches) > 1:
        total = total.clone()
        for patch in patches[1:]:  # in place: as many as there are edits
            total += patch.matrix.to(device, torch.float32)
    return lambda x: functional.linear(x, total.to(x.device))


_KEPT = "kept."


def _stored(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_KEPT + name: tensor for name, tensor in kept.items()}


def _restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(_KEPT): v for k, v in tensors.items() if k.startswith(_KEPT)}


def kept_of(patches: Iterable[Patch], site: str, *names: str) -> list[tuple[Tensor, ...]]:
    """What the patches of a site keep under these names, in order; those without are passed
    over. Because it goes with the patch, an undone edit takes it away and a redone one brings
    it back."""
    return [
        tuple(patch.kept[name] for name in names)
        for patch in patches
        if patch.site == site and all(name in patch.kept for name in names)
    ]


def describe(patch: Patch, weight_norm: float) -> dict[str, Any]:
    """What a person is told about a patch: {site, rank, norm_ratio ‖Δ‖/‖W‖}."""
    return {"site": patch.site, "rank": patch.rank, "norm_ratio": patch.norm() / weight_norm}
