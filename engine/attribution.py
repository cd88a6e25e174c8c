"""How much each neuron of each MLP adds to an answer's probability: integrated gradients.

    Attr_i = ā_i ∫₀¹ ∂p(y | a = α ā) / ∂a_i dα               Dai et al. 2022, eq. 4

a is the input of an MLP's mlp_out (the neurons' activations, behind the non-linearity and the
gate) at the position that predicts the answer's token y; ā is its value in the unchanged run.

Attention is causal, so that nothing but this last position changes: `_Last` runs it alone, over
the keys and values of what comes before, from the changed layer up. `_Whole` runs every token
through every layer. The two agree to rounding.

Most layers are so smooth in α that three readings come nearer to the integral than the paper's
twenty. Which ones are not can be told, because Σ_i Attr_i = p(y | ā) - p(y | 0) (completeness,
Sundararajan et al. 2017): those take the twenty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from . import hooks
from .events import Event, Loading
from .rerun import Past, attention_window, of_rows

if TYPE_CHECKING:
    from .lm import LM

Ids = Sequence[int]
LOGITS = 2**23  # computed at a time, at most: rows share passes up to this many
ROWS = 64  # of a pass, at most: more of them would run through layers below their own


@dataclass(frozen=True)
class Points:
    """Where the gradient is read on the way from 0 to ā, and what each reading counts."""

    at: tuple[float, ...]
    weights: tuple[float, ...]


def equal(m: int) -> Points:
    """1/m, 2/m ... 1, as in Dai et al. 2022, section 3.1."""
    return Points(tuple(j / m for j in range(1, m + 1)), (1 / m,) * m)


_ROOT = math.sqrt(6)
# Gauss-Radau on [0, 1]: exact up to the fourth degree, and 0 is one of its points.
_NODES = (0.0, (6 - _ROOT) / 10, (6 + _ROOT) / 10)
RADAU = Points(_NODES, (1 / 9, (16 + _ROOT) / 36, (16 - _ROOT) / 36))


@dataclass(frozen=True, eq=False)
class Attributions:
    """Of prompts, on the CPU, float32, [prompts, layers, d_ff].

    scores       Attr, the mean over the answer's tokens
    activations  ā behind the prompt, where the first of them is predicted
    """

    scores: Tensor
    activations: Tensor


def attributions(
    lm: LM,
    prompts: Sequence[Ids],
    answer: Ids,
    *,
    steps: int = 20,
    tolerance: float | None = 0.05,
    fast: bool = True,
) -> Generator[Event, None, Attributions]:
    """How much each neuron adds to the answer's probability.

    Each token is predicted behind the prompt and the answer's tokens before it.

    steps      m of the sum over equal steps
    tolerance  three readings do where what a layer's neurons add up to misses p(ā) - p(0) by no
               more than this share of p(ā); None: equal steps everywhere
    Yields Loading(stage="neurons").
    """
    found = torch.zeros(len(prompts), lm.n_layers, lm.arch.mlp_width)
    active = torch.zeros_like(found)
    points = equal(steps) if tolerance is None else RADAU
    room = max(1, min(ROWS, LOGITS // lm.model.config.get_text_config().vocab_size))
    done, total = 0, len(answer) * lm.n_layers * len(prompts)
    yield Loading(stage="neurons", done=0, total=total)
    for i, token in enumerate(answer):
        for chunk in _chunks(len(prompts), room // len(points.at)):
            run = _runner(lm, [prompts[k] for k in chunk], answer[:i], token, fast)
            every = range(len(chunk))
            if i == 0:
                active[chunk.start : chunk.stop] = torch.stack(run.activations, 1).cpu()
            for layers in _chunks(lm.n_layers, room // (len(chunk) * len(points.at))):
                attr, p = _integrate(lm, run, every, layers, points)
                if tolerance is not None:
                    missed = attr.sum(2) - (run.p[:, None] - p[..., 0])
                    for k, layer in enumerate(layers):
                        rough = missed[:, k].abs() > tolerance * run.p
                        for of in _chunked(rough.nonzero()[:, 0].tolist(), room // steps):
                            one = range(layer, layer + 1)
                            attr[of, k] = _integrate(lm, run, of, one, equal(steps))[0][:, 0]
                found[chunk.start : chunk.stop, layers.start : layers.stop] += attr.cpu()
                done += len(chunk) * len(layers)
                yield Loading(stage="neurons", done=done, total=total)
    return Attributions(found / len(answer), active)


def _integrate(
    lm: LM, run: _Last | _Whole, of: Sequence[int], layers: range, points: Points
) -> tuple[Tensor, Tensor]:
    """Attr [of, layers, d_ff] of some prompts, and p(y) [of, layers, points].

    One pass for all: a row of it has one layer's activations scaled.
    """
    n, m = len(of), len(points.at)
    at = torch.tensor(points.at, device=lm.device)
    weights = torch.tensor(points.weights, device=lm.device)
    plain = [run.activations[layer][list(of)] for layer in layers]  # [n, d_ff] each
    leaves = [(a[:, None] * at[:, None]).flatten(0, 1).requires_grad_() for a in plain]
    rows = [i for _ in layers for i in of for _ in range(m)]
    with torch.enable_grad(), ExitStack() as stack:
        for k, layer in enumerate(layers):
            scaled = _put(leaves[k], slice(k * n * m, (k + 1) * n * m), len(rows))
            site = lm.site("mlp_out", layer)
            stack.enter_context(hooks.rewritten_input(lm.model, site, scaled))
        p = run.probability(rows, layers.start)
        gradients = torch.autograd.grad(p.sum(), leaves)
    means = [(g.view(n, m, -1) * weights[:, None]).sum(1) for g in gradients]
    attr = torch.stack([a * g for a, g in zip(plain, means, strict=True)], 1)
    return attr, p.detach().view(len(layers), n, m).transpose(0, 1)


def _put(leaf: Tensor, rows: slice, count: int) -> Callable[[Tensor], Tensor]:
    """Replaces the last position's activations in some rows; OPT's come without a batch."""

    def put(x: Tensor) -> Tensor:
        y = x.reshape(count, -1, x.shape[-1]).clone()
        y[rows, -1] = leaf.to(y)
        return y.view(x.shape)

    return put


def _runner(lm: LM, prompts: Sequence[Ids], said: Ids, token: int, fast: bool) -> _Last | _Whole:
    """`_Last` where it applies: a cache cannot be cut to what is beyond a sliding window, and an
    encoder-decoder's decoder reads few tokens anyway."""
    longest = max(map(len, prompts)) + len(said)
    if fast and not lm.encoder_decoder and longest < attention_window(lm, cached=True):
        return _Last(lm, prompts, said, token)
    return _Whole(lm, prompts, said, token)


class _Whole:
    """Every token, every layer.

    activations  [layers][n, d_ff] ā, float32
    p            [n] p(y | ā)
    """

    def __init__(self, lm: LM, prompts: Sequence[Ids], said: Ids, token: int) -> None:
        self._lm, self._token = lm, token
        self._encoded: Tensor | None = None
        if lm.encoder_decoder:
            ids, self._mask = lm.pack(prompts)
            start = lm.model.config.decoder_start_token_id
            self._ids = torch.tensor([[start, *said]] * len(prompts), device=lm.device)
            with torch.no_grad():
                encoded = lm.model.get_encoder()(input_ids=ids, attention_mask=self._mask)
            self._encoded = encoded.last_hidden_state
        else:
            self._ids, self._mask = lm.pack([(*prompt, *said) for prompt in prompts])
        self.activations, self.p = _measured(lm, self.probability, len(prompts))

    def probability(self, of: Sequence[int], _above: int) -> Tensor:
        """p(y) [len(of)] of some rows."""
        lm, rows = self._lm, list(of)
        ids, mask = self._ids[rows], self._mask[rows]
        if self._encoded is None:
            return _probability(lm.forward(ids, mask, at=_ends(ids)).logits[0], self._token)
        out = lm.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded[rows]),
            attention_mask=mask,
            decoder_input_ids=ids,
            use_cache=False,
        )
        return _probability(out.logits[:, -1], self._token)


class _Last:
    """The last token alone, from a layer up.

    activations  [layers][n, d_ff] ā, float32
    p            [n] p(y | ā)
    """

    def __init__(self, lm: LM, prompts: Sequence[Ids], said: Ids, token: int) -> None:
        self._lm, self._token = lm, token
        rows = [(*prompt, *said) for prompt in prompts]
        self._past = Past(lm, [row[:-1] for row in rows], room=1)
        self._ids, last = lm.pack([row[-1:] for row in rows])
        self._mask = torch.cat([self._past.mask, last], dim=1)
        self._blocks = [lm.site("block", layer) for layer in range(lm.n_layers)]
        with hooks.raw_outputs(lm.model, *self._blocks) as self._reached:
            self.activations, self.p = _measured(lm, self.probability, len(rows))

    def probability(self, of: Sequence[int], above: int) -> Tensor:
        """p(y) [len(of)] of some rows; the layers below `above` hand on what the last of them
        puts out in the unchanged run."""
        lm, rows = self._lm, list(of)
        ids, below = self._ids[rows], self._blocks[:above]
        reached = of_rows(self._reached[below[-1]], rows) if below else None
        with hooks.skipped(lm.model, dict.fromkeys(below, reached)):
            cache = self._past.cache(rows)
            out = lm.forward(ids, self._mask[rows], cache=cache, at=_ends(ids))
        return _probability(out.logits[0], self._token)


@torch.no_grad()
def _measured(
    lm: LM, run: Callable[[Sequence[int], int], Tensor], n: int
) -> tuple[list[Tensor], Tensor]:
    """ā of every layer, [n, d_ff] float32, and p(y) [n], from the unchanged run."""
    sites = [lm.site("mlp_out", layer) for layer in range(lm.n_layers)]
    with hooks.capture(lm.model, *sites, inputs=True) as seen:
        p = run(range(n), 0)
    found = [seen[site] for site in sites]
    return [a.reshape(n, -1, a.shape[-1])[:, -1].float() for a in found], p


def _probability(logits: Tensor, token: int) -> Tensor:
    return logits.float().log_softmax(-1)[:, token].exp()


def _ends(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where the last tokens are: rows are padded on the left."""
    every = torch.arange(len(ids), device=ids.device)
    return every, torch.full_like(every, ids.shape[1] - 1)


def _chunked(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Runs of `size` items, at least one long."""
    size = max(1, size)
    return (items[start : start + size] for start in range(0, len(items), size))


def _chunks(count: int, size: int) -> Iterator[range]:
    """0 ... count - 1 in runs of `size`, at least one long."""
    size = max(1, size)
    return (range(start, min(start + size, count)) for start in range(0, count, size))
