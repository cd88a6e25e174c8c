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
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from . import hooks
from .closed_form import solved
from .config import Layer
from .errors import BadRequest
from .events import Event, Loading
from .patches import LowRank
from .tokens import Rendered, last_token
from .values import At, ValueParams

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request

_BATCH = 64  # rows at a time


@dataclass(frozen=True, kw_only=True)
class SpreadParams(ValueParams):
    """Hyper-parameters of an edit spread over layers."""

    at: ClassVar[At] = "block"

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
) -> Generator[Event, None, tuple[LowRank, ...]]:
    """A patch per layer that together bring an output of the last layer to `values` [n, d]: the
    block's, or that of mlp_out where `hp.at` names it.

    rows  how the method distributes the residuals R over keys: the update is R B
    """
    patches: list[LowRank] = []
    at = hp.at.split("+")[-1]
    subjects = Subjects(lm, requests, prompts, lm.site(at, hp.last))
    for layer in hp.layers:
        yield Loading(stage="layers", done=len(patches), total=len(hp.layers), unit="layers")
        left = len(hp.layers) - len(patches)
        with lm.active(patches):
            seen = subjects.look(layer)
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


class Subjects:
    """Every prompt, cut behind its subject's last token, in a model whose layers are being changed
    from below: `look` goes up, and blocks that stay as they were at the last look do not run again.
    """

    def __init__(
        self, lm: LM, requests: Sequence[Request], prompts: Sequence[Prompts], last: str
    ) -> None:
        """
        last  the module that the edit is about
        """
        bare, others = [], []
        for request, own in zip(requests, prompts, strict=True):
            if request.subject is None:
                raise BadRequest(
                    "every fact needs the subject of its prompt.", "Name it: --subject ..."
                )
            cut = [prompt.ids[: last_token(prompt, request.subject) + 1] for prompt in own]
            bare.append(cut[0])
            others += cut[1:]
        self._lm, self._last = lm, last
        self._contexts = [len(own) - 1 for own in prompts]  # of each fact
        self._bare, self._others = _Rows(lm, bare), _Rows(lm, others)

    def look(self, layer: int) -> Seen:
        """At this layer. Since the last look, nothing below that look's layer may have changed."""
        keys, output, reached = self._bare.see(layer, self._last)
        others = keys[:0]
        if any(self._contexts):
            others, _, _ = self._others.see(layer, self._lm.site("mlp_out", layer))
        means = [
            (own + more.mean(0)) / 2 if len(more) else own
            for own, more in zip(keys, torch.split(others, self._contexts), strict=True)
        ]
        return Seen(torch.stack(means), output, reached)


class _Rows:
    """Sequences of tokens that are read at their last one."""

    def __init__(self, lm: LM, rows: Sequence[Sequence[int]]) -> None:
        self._lm = lm
        starts = range(0, len(rows), _BATCH)
        self._batches = [lm.pack(rows[start : start + _BATCH]) for start in starts]
        self._constant = 0  # so many blocks need not run again ...
        self._reached: list[Any] = [None] * len(self._batches)  # ... and this is what they put out

    @torch.no_grad()
    def see(self, layer: int, last: str) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's keys, its mlp_out and module `last`, where the run ends; [n, ...] each."""
        model, mlp = self._lm.model, self._lm.site("mlp_out", layer)
        below = [self._lm.site("block", i) for i in range(layer)]
        found: list[list[Tensor]] = [[], [], []]
        for batch, (ids, mask) in enumerate(self._batches):
            constant = dict.fromkeys(below[: self._constant], self._reached[batch])
            with ExitStack() as stack:
                stack.enter_context(hooks.skipped(model, constant))
                blocks = stack.enter_context(hooks.raw_outputs(model, *below[-1:]))
                keys = stack.enter_context(hooks.capture(model, mlp, inputs=True))
                outputs = stack.enter_context(hooks.capture(model, mlp))
                ends = stack.enter_context(hooks.capture(model, last, stop=True))
                self._lm.body(ids, mask)
            self._reached[batch] = next(iter(blocks.values()), None)
            n = len(ids)  # padding is on the left: the last column is the subject's last token
            for kept, seen in zip(found, (keys[mlp], outputs[mlp], ends[last]), strict=True):
                kept.append(seen.reshape(n, ids.shape[1], -1)[:, -1].float())
        self._constant = layer
        K, V, H = (torch.cat(parts) for parts in found)
        return K, V, H


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
