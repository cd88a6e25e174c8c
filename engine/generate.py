"""Decoding: streamed for chat, batched for probes. Greedy unless asked otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from .events import Event, Loading, ReplyEnded, Token
from .tokens import Rendered

if TYPE_CHECKING:
    from .lm import LM

BATCH = 24  # prompts decoded together
PIECE = 256  # tokens of a long prompt that are read without a break


@dataclass(frozen=True)
class Reply:
    """A reply; `reason` is "stop" (by itself), "length" or "cancelled"."""

    text: str
    ids: tuple[int, ...]
    reason: str
    seconds: float
    first_token: float


@dataclass
class _State:
    """Where decoding stands: the cache, and the mask of what it holds."""

    mask: Tensor
    cache: Any
    encoded: Any = None  # encoder outputs of an encoder-decoder model


@torch.no_grad()
def begin(lm: LM, ids: Tensor, mask: Tensor) -> tuple[Tensor, _State]:
    """Read the prompts [n, t]; next-token logits [n, vocab] and the state to go on from."""
    rows = torch.arange(len(ids), device=ids.device)
    if lm.encoder_decoder:
        encoded = lm.model.get_encoder()(input_ids=ids, attention_mask=mask)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        state = _State(mask, cache, encoded)
        start = torch.full_like(ids[:, :1], lm.model.config.decoder_start_token_id)
        return advance(lm, state, start), state
    cache = DynamicCache(config=lm.model.config)
    out = lm.forward(ids, mask, cache=cache, at=(rows, torch.full_like(rows, ids.shape[1] - 1)))
    return out.logits[0], _State(mask, cache)


@torch.no_grad()
def advance(lm: LM, state: _State, chosen: Tensor) -> Tensor:
    """Append one token to each row, [n, 1]; the next logits [n, vocab]."""
    if lm.encoder_decoder:
        out = lm.model(
            encoder_outputs=state.encoded,
            attention_mask=state.mask,
            decoder_input_ids=chosen,
            **lm.going_on(state.cache),
        )
    else:
        state.mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
        out = lm.forward(chosen, state.mask, cache=state.cache)
    logits: Tensor = out.logits[:, -1]
    return logits


def _read(lm: LM, ids: Tensor, mask: Tensor) -> Generator[Event, None, tuple[Tensor, _State]]:
    """`begin` with one prompt [1, t]; a long one piece by piece, so that reading can be stopped."""
    size = ids.shape[1]
    if lm.encoder_decoder or size <= PIECE:
        return begin(lm, ids, mask)
    lm.check_fits(size)
    cache, whole = DynamicCache(config=lm.model.config), (size - 1) // PIECE * PIECE
    for start in range(0, whole, PIECE):
        yield Loading(stage="prompt", done=start, total=size, unit="tokens")
        end = start + PIECE
        with torch.no_grad():
            lm.body(ids[:, start:end], mask[:, :end], cache=cache)
    yield Loading(stage="prompt", done=whole, total=size, unit="tokens")
    with torch.no_grad():
        last = (torch.zeros(1, dtype=torch.long), torch.tensor([size - whole - 1]))
        out = lm.forward(ids[:, whole:], mask, cache=cache, at=last)
    return out.logits[0], _State(mask, cache)


def stream(
    lm: LM,
    prompt: Rendered,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Generator[Event, None, Reply]:
    """Reply to one prompt, yielding text as it comes; closing the generator stops it.

    Yields Loading(stage="prompt") while a long prompt is read, Token (never half a character),
    then ReplyEnded. Greedy at temperature 0.
    """
    began = time.perf_counter()
    stops = lm.stop_ids(prompt)
    sampler = torch.Generator(device="cpu").manual_seed(seed)
    ids: list[int] = []
    shown, reason, first_token = "", "length", 0.0
    logits, state = yield from _read(lm, *lm.pack([prompt.ids]))
    max_tokens = min(max_tokens, lm.room(len(prompt.ids)))
    while len(ids) < max_tokens:
        chosen = _choose(logits[0], temperature, top_p, sampler)
        first_token = first_token or time.perf_counter() - began
        if chosen in stops:
            reason = "stop"
            break
        ids.append(chosen)
        text, ended = until(lm.decode(ids), prompt.stop_text)
        if ended:
            reason = "stop"
            break
        fresh = _whole(text.lstrip())[len(shown) :]
        if fresh:
            shown += fresh
            yield Token(text=fresh)
        if len(ids) < max_tokens:
            logits = advance(lm, state, torch.tensor([[chosen]], device=lm.device))
    text = until(lm.decode(ids), prompt.stop_text)[0].lstrip()
    if len(text) > len(shown):
        yield Token(text=text[len(shown) :])
    seconds = time.perf_counter() - began
    reply = Reply(text.rstrip(), tuple(ids), reason, seconds, first_token)
    yield ReplyEnded(
        text=reply.text,
        tokens=len(ids),
        reason=reason,
        seconds=seconds,
        first_token=first_token,
        temperature=temperature,
        seed=seed,
    )
    return reply


def finish(replies: Generator[Event, None, Reply]) -> Reply:
    """Run a stream to its end and return its reply."""
    while True:
        try:
            next(replies)
        except StopIteration as stop:
            reply: Reply = stop.value
            return reply


def batched(
    lm: LM, prompts: Sequence[Rendered], max_tokens: int, stopped: Callable[[], bool] | None = None
) -> list[str]:
    """Greedy replies of many prompts; each stops by itself.

    stopped  is asked before every token; once it says True, replies end where they are
    """
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        texts += _batch(lm, prompts[start : start + BATCH], max_tokens, stopped)
    return texts


def _batch(
    lm: LM, prompts: Sequence[Rendered], max_tokens: int, stopped: Callable[[], bool] | None
) -> list[str]:
    stops = [lm.stop_ids(p) for p in prompts]
    ids: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    logits, state = begin(lm, *lm.pack([p.ids for p in prompts]))
    max_tokens = min(max_tokens, lm.room(max(len(p.ids) for p in prompts)))
    for step in range(max_tokens):
        chosen = logits.argmax(-1).tolist()
        for row in sorted(open_rows):
            if chosen[row] in stops[row]:
                open_rows.discard(row)
                continue
            ids[row].append(chosen[row])
            stop = prompts[row].stop_text
            if stop and until(lm.decode(ids[row]), stop)[1]:
                open_rows.discard(row)
        if not open_rows or step + 1 == max_tokens or (stopped is not None and stopped()):
            break
        logits = advance(lm, state, torch.tensor([[c] for c in chosen], device=lm.device))
    return [
        until(lm.decode(row), prompt.stop_text)[0].strip()
        for row, prompt in zip(ids, prompts, strict=True)
    ]


def _choose(logits: Tensor, temperature: float, top_p: float, sampler: torch.Generator) -> int:
    """The greedy token, or one sampled from the smallest set that holds `top_p` of the mass."""
    if temperature <= 0:
        return int(logits.argmax())
    probabilities = (logits.float().cpu() / temperature).softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    ordered[ordered.cumsum(0) - ordered > top_p] = 0
    return int(order[torch.multinomial(ordered, 1, generator=sampler)])


def until(text: str, stop: str) -> tuple[str, bool]:
    """`text` up to `stop`, and whether it was there (behind something that is not blank)."""
    if not stop or stop not in text.lstrip():
        return text, False
    body = text.lstrip()
    return body[: body.index(stop)], True


def _whole(text: str) -> str:
    """`text` without the replacement characters of an unfinished UTF-8 sequence at its end."""
    return text.rstrip("\ufffd")
