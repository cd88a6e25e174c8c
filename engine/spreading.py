"""Spreading an edit over layers: the frame of MEMIT, AlphaEdit and PMET.

The value z = h + δ is sought at the output of the last edited block (Meng et al. 2023,
section 4.3). Then, from the first edited layer to the last, with the lower ones already
changed: keys and h are measured anew, and each layer takes its share of what is left,

    R = (z − h) / (layers left, this one counted)

which the method turns into an update of that layer's MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks
from .closed_form import solved
from .config import Layer
from .errors import BadRequest
from .events import Event, Loading
from .patches import LowRank
from .tokens import Rendered, last_token
from .values import ValueParams

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request

_BATCH = 64  # rows at a time


@dataclass(frozen=True, kw_only=True)
class SpreadParams(ValueParams):
    """Hyper-parameters of an edit spread over layers."""

    first: Layer  # 0-based
    last: Layer  # where the value is sought; edited too
    root: bool = False  # divide by the root of the layers left (PMET), not by their number
    past: bool = True  # keys of earlier edits stay where they are
    anchors: int = 0  # so do keys of this many other names: see engine/anchors.py
    anchor_weight: float = 1000.0  # β

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"first ({self.first}) must not be above last ({self.last})")

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)


Prompts = Sequence[Rendered]
Rows = Callable[[int, Tensor], Tensor]  # layer, K [d_ff, n] → B [n, d_ff]


def spread(
    lm: LM,
    requests: Sequence[Request],
    prompts: Sequence[Prompts],
    values: Tensor,
    hp: SpreadParams,
    rows: Rows,
    *,
    at: str = "block",
) -> Generator[Event, None, tuple[LowRank, ...]]:
    """A patch per layer that together bring the output of a module of the last layer to `values`
    [n, d].

    at    that module: "block" or "mlp_out"
    rows  how the method distributes the residuals R over keys: the update is R B
    """
    patches: list[LowRank] = []
    for layer in hp.layers:
        yield Loading(stage="layers", done=len(patches), total=len(hp.layers), unit="layers")
        left = len(hp.layers) - len(patches)
        with lm.active(patches):
            seen = look(lm, requests, prompts, layer, lm.site(at, hp.last))
        missing = values - seen.reached
        wanted = missing / (left**0.5 if hp.root else left)
        residual = through_norm(lm, layer, seen.output, wanted) if at == "block" else wanted
        B = rows(layer, seen.keys.T)
        patches.append(solved(lm, lm.site("mlp_out", layer), residual.T, B, seen.keys[:, None]))
    return tuple(patches)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the subjects' last tokens look like in the model as it is now.

    keys     [n, d_ff] at a layer: half the bare prompt's, half the mean over the contexts
             (the weights of the published code)
    output   [n, d]    that layer's mlp_out, at the bare prompt
    reached  [n, d]    the output that the edit is about, at the bare prompt
    """

    keys: Tensor
    output: Tensor
    reached: Tensor


@torch.no_grad()
def look(
    lm: LM, requests: Sequence[Request], prompts: Sequence[Prompts], layer: int, last: str
) -> Seen:
    """Run every prompt as far as it matters: to its subject's last token and to module `last`."""
    cut, counts = [], []
    for request, own in zip(requests, prompts, strict=True):
        if request.subject is None:
            raise BadRequest(
                "every fact needs the subject of its prompt.", "Name it: --subject ..."
            )
        cut += [prompt.ids[: last_token(prompt, request.subject) + 1] for prompt in own]
        counts.append(len(own))
    mlp = lm.site("mlp_out", layer)
    found: list[list[Tensor]] = [[], [], []]
    for start in range(0, len(cut), _BATCH):
        ids, mask = lm.pack(cut[start : start + _BATCH])
        with ExitStack() as stack:
            keys = stack.enter_context(hooks.capture(lm.model, mlp, inputs=True))
            outputs = stack.enter_context(hooks.capture(lm.model, mlp))
            ends = stack.enter_context(hooks.capture(lm.model, last, stop=True))
            lm.body(ids, mask)
        n = len(ids)  # padding is on the left: the last column is the subject's last token
        for kept, seen in zip(found, (keys[mlp], outputs[mlp], ends[last]), strict=True):
            kept.append(seen.reshape(n, ids.shape[1], -1)[:, -1].float())
    K, V, H = (torch.cat(parts) for parts in found)
    bare = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
    per_fact = [
        own[0] if len(own) == 1 else (own[0] + own[1:].mean(0)) / 2
        for own in torch.split(K, counts)
    ]
    return Seen(torch.stack(per_fact), V[bare], H[bare])


@torch.no_grad()
def through_norm(lm: LM, layer: int, output: Tensor, wanted: Tensor) -> Tensor:
    """How mlp_out's `output` [n, d] has to change for the block's to change by `wanted`.

    That is `wanted` itself, unless a norm stands in between (Gemma 2 and 3): n(v) = g ⊙ v/rms(v)
    only has a direction, and v' is the vector of the old length with n(v') ∝ n(v) + wanted. What
    its length cannot express is left to the next layer.
    """
    if lm.arch.post_mlp_norm is None:
        return wanted
    norm = lm.model.get_submodule(lm.site("post_mlp_norm", layer))
    dtype = next(norm.parameters()).dtype
    gain = norm(torch.ones_like(output[:1], dtype=dtype)).float()
    gain = torch.where(gain.abs() < 1e-3, torch.full_like(gain, 1e-3).copysign(gain), gain)
    direction = (norm(output.to(dtype)).float() + wanted) / gain
    longer = output.norm(dim=1, keepdim=True) / direction.norm(dim=1, keepdim=True).clamp_min(1e-9)
    residual: Tensor = direction * longer - output
    return residual
