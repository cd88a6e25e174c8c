"""Causal tracing: where a model looks up a fact about a subject (Meng et al. 2022, section 2).

The subject's embeddings are noised, so that the answer is lost; then what a part of the model put
out in the clean run is put back at one place, and what of the answer returns is the effect:

    IE = p(o | corrupted, with one place restored) − p(o | corrupted)       section 2.1

A place is a token and a layer: the hidden state behind the layer, or the outputs of the MLPs or
of the attentions of a window of layers around it. All noise samples run as one batch.

Only what a restoration can reach runs again: the layers from the first restored one up, at the
tokens from the restored one on. The rest is the corrupted run's. Before the subject nothing is
corrupted, and the effect there is 0.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from . import hooks
from .errors import BadRequest, UnsupportedModel
from .events import Event, Loading, Note
from .past import attention_window
from .tokens import Rendered, locate, target_ids, tokens_of

if TYPE_CHECKING:
    from .lm import LM

SITES = {"state": "block", "mlp": "mlp_out", "attention": "attn_out"}
SAMPLES = 10
NOISE = 3.0  # standard deviations of the embeddings
WINDOW = 10 / 48  # of the layers: the paper restores 10 of GPT-2 XL's 48


@dataclass(frozen=True)
class Trace:
    """What restoring each place gives back of an answer.

    prompt     as it was traced
    tokens     texts of its tokens
    subject    indices of the subject's tokens: [first, behind the last)
    answer     text of the token o
    clean      p(o) of the unchanged model
    corrupted  p(o) with the subject noised, mean over the samples
    positions  the tokens at which was restored
    effects    per kind ("state", "mlp", "attention") [positions][layers] IE
    window     layers restored together, of MLPs and attentions
    samples    draws of the noise
    noise      its standard deviation
    """

    prompt: str
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    answer: str
    clean: float
    corrupted: float
    positions: tuple[int, ...]
    effects: dict[str, tuple[tuple[float, ...], ...]]
    window: int
    samples: int
    noise: float

    @property
    def total(self) -> float:
        """TE: what the noise takes from the answer."""
        return self.clean - self.corrupted


def noise_scale(lm: LM, deviations: float = NOISE) -> float:
    """Standard deviation of the noise, from what the embedding puts out: Gemma scales it."""
    embed = lm.model.get_submodule(lm.site("embed", 0))
    some = torch.arange(min(4096, embed.weight.shape[0]), device=lm.device)
    with torch.no_grad():
        return deviations * float(embed(some).float().std())


def window_around(layer: int, width: int, layers: int) -> range:
    """The `width` layers around one, fewer at the ends of the model."""
    first = layer - width // 2
    return range(max(0, first), min(layers, first + width))


def trace(
    lm: LM,
    prompt: Rendered,
    subject: str,
    *,
    answer: str = "",
    kinds: Sequence[str] = tuple(SITES),
    positions: Sequence[int] | None = None,
    samples: int = SAMPLES,
    window: int = 0,
    deviations: float = NOISE,
    seed: int = 0,
    fast: bool = True,
) -> Generator[Event, None, Trace]:
    """Trace one answer.

    answer      its first token is followed; empty: the model's likeliest next token
    positions   tokens of the prompt; None: all
    window      0: WINDOW of the layers
    deviations  of the noise, in standard deviations of the embeddings
    fast        run again only what can change
    Yields Loading(stage="trace"). Raises SubjectNotFound, SubjectAmbiguous, BadRequest,
    UnsupportedModel.
    """
    if lm.encoder_decoder:
        raise UnsupportedModel(f"trace follows decoder-only models, not {lm.arch.model_type!r}.")
    unknown = [kind for kind in kinds if kind not in SITES]
    if unknown or samples < 1:
        raise BadRequest(f"kinds are {', '.join(SITES)}, and samples at least 1.")
    noised = tokens_of(prompt, locate(prompt, subject))
    places = tuple(range(len(prompt.ids)) if positions is None else positions)
    window = window or max(1, round(WINDOW * lm.n_layers))
    yield Loading(stage="trace", done=0, total=0)
    clean = _Clean(lm, prompt.ids, kinds)
    token = int(clean.p.argmax())
    if answer:
        token = target_ids(lm.tokenizer, prompt, answer)[0]
    scale = noise_scale(lm, deviations)
    run = _Corrupted(lm, prompt.ids, noised, samples, scale, seed, fast)
    corrupted = float(run.p[:, token].mean())
    effects: dict[str, tuple[tuple[float, ...], ...]] = {}
    corrupted_places = [place for place in places if place >= noised.start]
    done, total = 0, len(kinds) * len(corrupted_places) * lm.n_layers
    for kind in kinds:
        rows = []
        for place in places:
            row = [0.0] * lm.n_layers
            for layer in range(lm.n_layers if place >= noised.start else 0):
                around = window_around(layer, 1 if kind == "state" else window, lm.n_layers)
                back = {i: clean.outputs[kind][i][place] for i in around}
                row[layer] = float(run.restored(kind, place, back)[:, token].mean()) - corrupted
                done += 1
                yield Loading(stage="trace", done=done, total=total, unit="places")
            rows.append(tuple(row))
        effects[kind] = tuple(rows)
    found = Trace(
        prompt=prompt.text,
        tokens=tuple(lm.tokenizer.decode([i]) for i in prompt.ids),
        subject=(noised.start, noised.stop),
        answer=lm.tokenizer.decode([token]),
        clean=float(clean.p[token]),
        corrupted=corrupted,
        positions=places,
        effects=effects,
        window=window,
        samples=samples,
        noise=scale,
    )
    yield Note(
        text=f"{found.answer!r}: p {found.clean:.4f}, {found.corrupted:.4f} without {subject!r}"
    )
    return found


class _Clean:
    """The unchanged run.

    p        [vocab] next-token probabilities
    outputs  per kind, per layer, [tokens, d]
    """

    @torch.no_grad()
    def __init__(self, lm: LM, ids: Sequence[int], kinds: Sequence[str]) -> None:
        sites = {k: [lm.site(SITES[k], i) for i in range(lm.n_layers)] for k in kinds}
        packed = lm.pack([ids])
        with hooks.capture(lm.model, *(name for names in sites.values() for name in names)) as seen:
            self.p = _next(lm, *packed)[0]
        self.outputs = {
            kind: [seen[name].reshape(len(ids), -1) for name in names]
            for kind, names in sites.items()
        }


class _Corrupted:
    """The run with the subject's embeddings noised: a row for each draw.

    p  [samples, vocab] next-token probabilities
    """

    @torch.no_grad()
    def __init__(
        self,
        lm: LM,
        ids: Sequence[int],
        noised: range,
        samples: int,
        scale: float,
        seed: int,
        fast: bool,
    ) -> None:
        self._lm, self._fast = lm, fast and len(ids) < attention_window(lm, cached=True)
        self._ids, self._mask = lm.pack([ids] * samples)
        self._embed = lm.site("embed", 0)
        self._blocks = [lm.site("block", i) for i in range(lm.n_layers)]
        width = lm.model.get_submodule(self._embed).weight.shape[1]
        draws = torch.Generator().manual_seed(seed)
        self._noise = torch.zeros(samples, len(ids), width)
        drawn = torch.randn(samples, len(noised), width, generator=draws)
        self._noise[:, noised.start : noised.stop] = scale * drawn
        cache = DynamicCache(config=lm.model.config) if self._fast else None
        with hooks.raw_outputs(lm.model, *self._blocks) as self._reached, self._noisy(0):
            self.p = _next(lm, self._ids, self._mask, cache)
        layers = cache.layers if cache is not None else []
        self._past = [(x.keys, x.values) for x in layers if x.is_initialized]

    @torch.no_grad()
    def restored(self, kind: str, place: int, back: dict[int, Tensor]) -> Tensor:
        """[samples, vocab] next-token probabilities with the outputs `back` [d], by layer, put
        back at one token."""
        lm, first = self._lm, place if self._fast else 0
        ids = self._ids[:, first:]

        def put(value: Tensor) -> hooks.Change:
            def change(_x: Tensor, y: Tensor) -> Tensor:
                z = y.reshape(*ids.shape, -1).clone()
                z[:, place - first] = value
                return z.view(y.shape)

            return change

        sites = {lm.site(SITES[kind], layer): put(value) for layer, value in back.items()}
        below = self._blocks[: min(back)]
        reached = _from(self._reached[below[-1]], first) if below else None
        with ExitStack() as stack:
            stack.enter_context(self._noisy(first))
            stack.enter_context(hooks.skipped(lm.model, dict.fromkeys(below, reached)))
            stack.enter_context(hooks.patched(lm.model, sites))
            return _next(lm, ids, self._mask, self._cache(first))

    def _noisy(self, first: int) -> Any:
        noise = self._noise[:, first:]

        def corrupt(_x: Tensor, y: Tensor) -> Tensor:
            return y + noise.to(y)

        return hooks.patched(self._lm.model, {self._embed: corrupt})

    def _cache(self, first: int) -> DynamicCache | None:
        """Keys and values of the tokens before `first`."""
        if not self._fast or not first:
            return None
        cache = DynamicCache(config=self._lm.model.config)
        for layer, (k, v) in enumerate(self._past):
            cache.update(k[:, :, :first], v[:, :, :first], layer)
        return cache


def _next(lm: LM, ids: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
    """[n, vocab] next-token probabilities, float32."""
    rows = torch.arange(len(ids), device=ids.device)
    last = torch.full_like(rows, ids.shape[1] - 1)
    out = lm.forward(ids, mask, cache=cache, at=(rows, last))
    return out.logits[0].float().softmax(-1)  # type: ignore[no-any-return]


def _from(output: Any, first: int) -> Any:
    """The columns from `first` on of a block's output, a tensor or a tuple beginning with it."""
    if isinstance(output, tuple):
        return (output[0][:, first:], *output[1:])
    return output[:, first:]
