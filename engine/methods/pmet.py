"""PMET: MEMIT that edits the MLP's part alone (Li et al. 2024, arXiv:2308.08742).

A block's output is its input, plus what attention adds, plus what the MLP adds. MEMIT asks the MLP
for the whole change; PMET seeks a change for each part together (its eq. 6), keeps that of the
MLP, and drops that of the attention, which stores no facts. The residual is spread over the layers
by its square root (its section 3.3):

    Δ = R Kᵀ (λC + KKᵀ)⁻¹,  R = (v − W_L k_L) / √(layers left, this one counted)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..edit import Edit
from ..events import Event
from ..rerun import Place
from .memit import MemitParams, by_least_squares

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class PmetParams(MemitParams):
    """Hyper-parameters; see hparams/pmet/*.yaml for where the values come from."""

    root: bool = True

    def place(self, lm: LM) -> Place:
        return Place([self.last], "attn_out+mlp_out")


def pmet(lm: LM, requests: Sequence[Request], hp: PmetParams) -> Generator[Event, None, Edit]:
    """PMET. Any number of requests, each with a subject."""
    return (yield from by_least_squares(lm, requests, hp, "pmet"))
