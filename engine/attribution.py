"""How much each neuron of each MLP adds to an answer's probability: integrated gradients.

    Attr_i = ā_i ∫₀¹ ∂p(y | a = α ā) / ∂a_i dα               Dai et al. 2022, eq. 4

a is the input of an MLP's mlp_out (the neurons' activations, behind the non-linearity and the
gate) at the position that predicts the answer's token y; ā is its value in the unchanged run.

Attention is causal, so that nothing but this last position changes: `_Last` runs it alone, over
the keys and values of what comes before, from the changed layer up. `_Whole` runs every token
through every layer. The two agree to rounding.

Most layers are so smooth in α that three readings come nearer to the integral than the paper's
twenty. Which ones are not can be told, because Σ_i Attr_i = p(y | ā) - p(y | 0) (completeness,
Sundararajan et al. 2017): those take the twenty. It can be told no better than p is known: a
logit of 16 is rounded to an eighth in bfloat16, and p by as large a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from . import hooks
from .events import Event, Loading
from .past import Past, attention_window
from .rerun import of_rows

if TYPE_CHECKING:
    from .lm import LM

Ids = Sequence[int]
Pair = tuple[int, int]  # a layer and the number of a prompt
LOGITS = 2**23  # computed at a time, at most: rows share passes up to this many
_LOGIT = 16  # of a token that is likely; its rounding is the share by which p is not known
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
               more than this share of p(ā), and what rounding may; None: equal steps everywhere
    Yields Loading(stage="neurons").
    """
    found = torch.zeros(len(prompts), lm.n_layers, lm.arch.mlp_width)
    room = max(1, min(ROWS, LOGITS // lm.model.config.get_text_config().vocab_size))
    every = [(layer, k) for layer in range(lm.n_layers) for k in range(len(prompts))]
    rules = [(equal(steps), math.inf)]
    if tolerance is not None:
        rules.insert(0, (RADAU, tolerance + _LOGIT * torch.finfo(lm.dtype).eps))
    done, total = 0, len(answer) * len(every)
    yield Loading(stage="neurons", done=0, total=total)
    for i, token in enumerate(answer):
        run = _runner(lm, prompts, answer[:i], token, fast)
        if i == 0:
            active = torch.stack(run.activations, 1).cpu()
        own, open_ = torch.zeros_like(found), every
        for points, within in rules:
            rough: list[Pair] = []
            for pairs in _chunked(open_, room // len(points.at)):
                attr, missed = _integrate(lm, run, pairs, points)
                layers, of = zip(*pairs, strict=True)
                own[of, layers] = attr.cpu()
                far = [pair for pair, by in zip(pairs, missed.tolist(), strict=True) if by > within]
                rough += far
                done += len(pairs) - len(far)
                yield Loading(stage="neurons", done=done, total=total)
            open_ = rough
        found += own / len(answer)
    return Attributions(found, active)


def _integrate(
    lm: LM, run: _Last | _Whole, pairs: Sequence[Pair], points: Points
) -> tuple[Tensor, Tensor]:
    """Attr [n, d_ff] of n layers of prompts, and [n] by what share of p(ā) they miss p(ā) - p(0),
    if 0 is the first point.

    One pass for all, the lowest layers first: a row of it has one layer's activations scaled.
    """
    m, rows = len(points.at), range(len(pairs) * len(points.at))
    at = torch.tensor(points.at, device=lm.device)
    weights = torch.tensor(points.weights, device=lm.device)
    plain = torch.stack([run.activations[layer][k] for layer, k in pairs])
    leaf = (plain[:, None] * at[:, None]).flatten(0, 1).requires_grad_()
    with torch.enable_grad(), ExitStack() as stack:
        for layer, group in groupby(rows, key=lambda row: pairs[row // m][0]):
            its = list(group)
            scaled = _put(leaf, slice(its[0], its[-1] + 1), len(rows))
            site = lm.site("mlp_out", layer)
            stack.enter_context(hooks.rewritten_input(lm.model, site, scaled))
        p = run.probability([pairs[row // m][1] for row in rows], pairs[0][0])
        (gradient,) = torch.autograd.grad(p.sum(), leaf)
    attr = plain * (gradient.view(len(pairs), m, -1) * weights[:, None]).sum(1)
    whole, first = run.p[[k for _, k in pairs]], p.detach().view(-1, m)[:, 0]
    return attr, (attr.sum(1) - (whole - first)).abs() / whole


def _put(leaf: Tensor, rows: slice, count: int) -> Callable[[Tensor], Tensor]:
    """Replaces the last position's activations in some rows; OPT's come without a batch."""

    def put(x: Tensor) -> Tensor:
        y = x.reshape(count, -1, x.shape[-1]).clone()
        y[rows, -1] = leaf[rows].to(y)
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


def _chunked(items: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Runs of `size` items, at least one long."""
    size = max(1, size)
    return (items[start : start + size] for start in range(0, len(items), size))
