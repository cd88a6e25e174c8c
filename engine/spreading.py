"""Spreading an edit over layers: the frame of MEMIT, AlphaEdit and PMET.

The value z = h + δ is sought at the output of the last edited block (Meng et al. 2023,
section 4.3). Then, from the first edited layer to the last, with the lower ones already
changed: keys and h are measured anew, and each layer takes its share of what is left,

    R = (z − h) / (layers left, this one counted)

which the method turns into an update of that layer's MLP.

Behind a norm that follows the MLP (Gemma 2 and 3) no share can be asked for: of what an MLP puts
out only the direction counts, and a δ that is measured by ‖h‖ may be longer than all it can add.
There δ is sought at the MLPs of all edited layers at once, before their norms, a part for each
(`values`), and R = v_l − W k_l, where v_l is what the layer's MLP puts out with all parts in place.
Ours; PMET, which asks the MLPs below for a change of the last one's output, is experimental there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import hooks
from .closed_form import patch_of
from .config import Layer
from .errors import BadRequest
from .events import Event, Loading
from .patches import LowRank
from .rerun import Place
from .tokens import Rendered, last_token
from .values import Value, ValueParams

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
        super().__post_init__()
        if self.first > self.last:
            raise ValueError(f"first ({self.first}) must not be above last ({self.last})")

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    def place(self, lm: LM) -> Place:
        if lm.arch.post_mlp_norm is None:
            return Place([self.last], "block")
        return Place(self.layers)


Prompts = Sequence[Rendered]
Rows = Callable[[int, Tensor], Tensor]  # layer, K [d_ff, n] → B [n, d_ff]


def spread(
    lm: LM,
    requests: Sequence[Request],
    prompts: Sequence[Prompts],
    values: Sequence[Value],
    hp: SpreadParams,
    rows: Rows,
) -> Generator[Event, None, tuple[LowRank, ...]]:
    """A patch per layer that together bring the outputs at `hp.place` to `values`.

    rows  how the method distributes the residuals R over keys: the update is R B
    """
    patches: list[LowRank] = []
    subjects, place = Subjects(lm, requests, prompts), hp.place(lm)
    sites, at_once = place.sites(lm), len(place.layers) > 1
    deltas = torch.stack([value.delta for value in values])
    if at_once:
        wanted = subjects.changed(sites, deltas)
    else:
        wanted = torch.stack([value.outputs[0] for value in values]) + deltas
    goals = wanted.chunk(len(sites), dim=1)
    for done, layer in enumerate(hp.layers):
        yield Loading(stage="layers", done=done, total=len(hp.layers), unit="layers")
        own, left = (done, 1) if at_once else (-1, len(hp.layers) - done)
        with lm.active(patches):
            seen = subjects.look(layer, sites[own])
        residual = (goals[own] - seen.reached) / (left**0.5 if hp.root else left)
        B = rows(layer, seen.keys.T)
        patches.append(patch_of(lm, lm.site("mlp_out", layer), residual.T, B, seen.keys[:, None]))
    return tuple(patches)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the subjects' last tokens look like in the model as it is now.

    keys     [n, d_ff] at a layer: half the bare prompt's, half the mean over the contexts
             (the weights of the published code)
    reached  [n, d]    the output of a module, at the bare prompt
    """

    keys: Tensor
    reached: Tensor


class Subjects:
    """Every prompt, cut behind its subject's last token, in a model whose layers are being changed
    from below: `look` goes up, and blocks that stay as they were at the last look do not run again.
    """

    def __init__(self, lm: LM, requests: Sequence[Request], prompts: Sequence[Prompts]) -> None:
        bare, others = [], []
        for request, own in zip(requests, prompts, strict=True):
            if request.subject is None:
                raise BadRequest(
                    "every fact needs the subject of its prompt.", "Name it: --subject ..."
                )
            cut = [prompt.ids[: last_token(prompt, request.subject) + 1] for prompt in own]
            bare.append(cut[0])
            others += cut[1:]
        self._lm = lm
        self._contexts = [len(own) - 1 for own in prompts]  # of each fact
        self._bare, self._others = _Rows(lm, bare), _Rows(lm, others)

    def look(self, layer: int, site: str) -> Seen:
        """At the keys of this layer, and at what the module `site`, there or above, puts out. Since
        the last look, nothing below that look's layer may have changed."""
        keys, reached = self._bare.see(layer, site)
        others = keys[:0]
        if any(self._contexts):
            others, _ = self._others.see(layer, self._lm.site("mlp_out", layer))
        means = [
            (own + more.mean(0)) / 2 if len(more) else own
            for own, more in zip(keys, torch.split(others, self._contexts), strict=True)
        ]
        return Seen(torch.stack(means), reached)

    def changed(self, sites: Sequence[str], deltas: Tensor) -> Tensor:
        """[n, p d] what the p modules put out at the bare prompt's subject, where each has its
        part of `deltas` [n, p d] added."""
        return self._bare.changed(sites, deltas)


class _Rows:
    """Sequences of tokens that are read at their last one."""

    def __init__(self, lm: LM, rows: Sequence[Sequence[int]]) -> None:
        self._lm = lm
        starts = range(0, len(rows), _BATCH)
        self._batches = [lm.pack(rows[start : start + _BATCH]) for start in starts]
        self._constant = 0  # so many blocks need not run again ...
        self._reached: list[Any] = [None] * len(self._batches)  # ... and this is what they put out

    @torch.no_grad()
    def see(self, layer: int, site: str) -> tuple[Tensor, Tensor]:
        """The layer's keys and what module `site` puts out, where the run ends; [n, ...] each."""
        model, mlp = self._lm.model, self._lm.site("mlp_out", layer)
        below = [self._lm.site("block", i) for i in range(layer)]
        found: list[list[Tensor]] = [[], []]
        for batch, (ids, mask) in enumerate(self._batches):
            constant = dict.fromkeys(below[: self._constant], self._reached[batch])
            with ExitStack() as stack:
                stack.enter_context(hooks.skipped(model, constant))
                blocks = stack.enter_context(hooks.raw_outputs(model, *below[-1:]))
                keys = stack.enter_context(hooks.capture(model, mlp, inputs=True))
                ends = stack.enter_context(hooks.capture(model, site, stop=True))
                self._lm.body(ids, mask)
            self._reached[batch] = next(iter(blocks.values()), None)
            n = len(ids)  # padding is on the left: the last column is the subject's last token
            for kept, seen in zip(found, (keys[mlp], ends[site]), strict=True):
                kept.append(seen.reshape(n, ids.shape[1], -1)[:, -1].float())
        self._constant = layer
        K, H = (torch.cat(parts) for parts in found)
        return K, H

    @torch.no_grad()
    def changed(self, sites: Sequence[str], deltas: Tensor) -> Tensor:
        """See `Subjects.changed`."""
        found = []
        for (ids, mask), some in zip(self._batches, torch.split(deltas, _BATCH), strict=True):

            def add(part: Tensor, ids: Tensor = ids) -> hooks.Change:
                here = torch.zeros(*ids.shape, 1, device=ids.device)
                here[:, -1] = 1
                return lambda _x, y: y + (here * part[:, None]).to(y).reshape(y.shape)

            parts = zip(sites, some.chunk(len(sites), dim=1), strict=True)
            with (
                hooks.patched(self._lm.model, {site: add(part) for site, part in parts}),
                hooks.capture(self._lm.model, *sites, stop=True) as seen,
            ):
                self._lm.body(ids, mask)
            last = [seen[site].reshape(*ids.shape, -1)[:, -1].float() for site in sites]
            found.append(torch.cat(last, dim=1))
        return torch.cat(found)
