"""What an edit did to a record: probabilities, teacher-forced tokens, and what is really said.

One pass over a record's (prompt, target) pairs gives each pair's NLL and argmax tokens
(`scores`); the probability metrics of ROME (ES, PS, NS and their magnitudes) and the
teacher-forced ones of the comparison papers are both read off it (`judge`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..lm import LM
from ..tokens import Rendered, continuation
from .datasets import Record
from .normalise import begins_with, equals

BATCH_TOKENS = 2048  # padded tokens of one forward pass
ROOM = 6  # tokens decoded beyond the target's own: the rule looks at the beginning only

Pair = tuple[Sequence[int], Sequence[int]]  # prompt ids, target ids
JsonDict = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A target after a prompt.

    nll     mean over the target's tokens of -log p(token | prompt, target so far), nats
    argmax  the most probable token at each of the target's positions, gold tokens before it
    hits    share of the target's tokens that are the argmax
    """

    nll: float
    argmax: tuple[int, ...]
    hits: float


@dataclass(frozen=True)
class Said:
    """A greedy continuation or answer, and whether it is the target."""

    text: str
    hit: bool


# -- pairs of a prompt and a target -------------------------------------------------------------


@torch.no_grad()
def scores(lm: LM, pairs: Sequence[Pair]) -> list[Score]:
    """Each pair's score, in order; logits are computed at target positions only.

    Pairs run in batches of similar length. Which pairs share a batch depends on their lengths
    alone, so before and after an edit they are the same and compare.
    """
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    found: dict[int, Score] = {}
    while order:
        batch = _next_batch(pairs, order)
        del order[: len(batch)]
        found |= dict(zip(batch, _scores(lm, [pairs[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(pairs))]


def _next_batch(pairs: Sequence[Pair], order: Sequence[int]) -> list[int]:
    """As many of `order`, shortest first, as fit into one forward pass; at least one."""
    batch: list[int] = []
    for i in order:
        longest = len(pairs[i][0]) + len(pairs[i][1])
        if batch and (len(batch) + 1) * longest > BATCH_TOKENS:
            break
        batch.append(i)
    return batch


def _scores(lm: LM, pairs: Sequence[Pair]) -> list[Score]:
    if any(not prompt or not target for prompt, target in pairs):
        raise ValueError("a prompt or a target has no tokens")
    logits = _decoder_logits(lm, pairs) if not lm.encoder_decoder else _seq2seq_logits(lm, pairs)
    wanted = torch.tensor([t for _, target in pairs for t in target], device=logits.device)
    logp = logits.float().log_softmax(-1)  # [sum of target lengths, vocab]
    nll = -logp.gather(1, wanted[:, None])[:, 0]
    best = logits.argmax(-1)
    sizes = [len(target) for _, target in pairs]
    return [
        Score(float(n.mean()), tuple(b.tolist()), float((b == w).float().mean()))
        for n, b, w in zip(*(torch.split(x, sizes) for x in (nll, best, wanted)), strict=True)
    ]


def _decoder_logits(lm: LM, pairs: Sequence[Pair]) -> Tensor:
    """Logits that predict the targets' tokens, [sum of target lengths, vocab]."""
    # The last target token is predicted, never read.
    read = [(*prompt, *target[:-1]) for prompt, target in pairs]
    rows, row_of = _longest(read)
    ids, mask = lm.pack(rows)
    places = []
    for (prompt, target), own in zip(pairs, read, strict=True):
        row = row_of[own]
        first = ids.shape[1] - len(rows[row]) + len(prompt) - 1  # rows are padded on the left
        places += [(row, first + k) for k in range(len(target))]
    at = torch.tensor(places, device=ids.device).T
    logits: Tensor = lm.forward(ids, mask, at=(at[0], at[1])).logits
    return logits.reshape(len(places), -1)


def _longest(read: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], dict[Any, int]]:
    """The sequences that begin no other one, and where each of `read` is found among them: what
    is read of it does not depend on what follows."""
    rows: list[tuple[int, ...]] = []
    row_of = {}
    for own in sorted(set(read), key=len, reverse=True):
        found = next((i for i, row in enumerate(rows) if row[: len(own)] == own), len(rows))
        if found == len(rows):
            rows.append(own)
        row_of[own] = found
    return rows, row_of


def _seq2seq_logits(lm: LM, pairs: Sequence[Pair]) -> Tensor:
    """As above: the prompt goes into the encoder, the decoder reads the target shifted right."""
    ids, mask = lm.pack([prompt for prompt, _ in pairs])
    start = lm.model.config.decoder_start_token_id
    longest = max(len(target) for _, target in pairs)
    # Padding on the right is never seen from the positions before it.
    shifted = [[start, *t[:-1]] + [start] * (longest - len(t)) for _, t in pairs]
    decoder = torch.tensor(shifted, device=ids.device)
    out = lm.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder, use_cache=False)
    return torch.cat([out.logits[row, : len(t)] for row, (_, t) in enumerate(pairs)])


# -- records ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A record on one state of the model.

    edit, paraphrases  (new, old) targets' scores; old is None where it is unknown
    neighbours         (new target, right answer) scores
    said, rephrased    greedy, on the edit prompt and on each paraphrase
    """

    edit: tuple[Score, Score | None]
    paraphrases: tuple[tuple[Score, Score | None], ...]
    neighbours: tuple[tuple[Score, Score], ...]
    said: Said
    rephrased: tuple[Said, ...]


def measure(lm: LM, record: Record) -> Measured:
    """Everything that is measured of a record, on the model as it is now."""
    request = record.request
    prompts = [lm.prompt(p, chat=request.chat) for p in (request.prompt, *request.rephrases)]
    beside = [lm.prompt(p.prompt, chat=request.chat) for p in record.neighbours]
    asked: list[tuple[Rendered, str]] = [(p, request.target_new) for p in prompts + beside]
    if request.target_old:
        asked += [(p, request.target_old) for p in prompts]
    asked += [(p, n.answer) for p, n in zip(beside, record.neighbours, strict=True)]
    found = scores(lm, [(p.ids, _ids(lm, p, target)) for p, target in asked])
    n, m = len(prompts), len(beside)
    new, new_beside, rest = found[:n], found[n : n + m], found[n + m :]
    old: list[Score | None] = list(rest[:n]) if request.target_old else [None] * n
    replies = said(lm, prompts, request.target_new)
    return Measured(
        edit=(new[0], old[0]),
        paraphrases=tuple(zip(new[1:], old[1:], strict=True)),
        neighbours=tuple(zip(new_beside, rest[len(rest) - m :], strict=True)),
        said=replies[0],
        rephrased=tuple(replies[1:]),
    )


def _ids(lm: LM, prompt: Rendered, target: str) -> tuple[int, ...]:
    """Ids of the target's own words after `prompt`: one leading space where there is one, no
    BOS, and no end of turn (its probability says nothing about the fact)."""
    return continuation(lm.tokenizer, prompt.glue + target)


def said(lm: LM, prompts: Sequence[Rendered], target: str) -> list[Said]:
    """Greedy decoding judged by the rule of its kind of prompt.

    Chat: the answer, alone and ended by itself, equals the target (at most 64 tokens).
    Statement: the continuation up to the first line break begins with the target; only as
    many tokens are decoded as the rule can look at.
    """
    if not prompts:
        return []
    if prompts[0].chat:
        replies = [lm.reply(p, max_tokens=64) for p in prompts]
        return [Said(r.text, equals(r.text, target) and r.reason == "stop") for r in replies]
    room = max(len(_ids(lm, p, target)) for p in prompts) + ROOM
    texts = [t.split("\n")[0] for t in lm.answers(prompts, max_tokens=room)]
    return [Said(t, begins_with(t, target)) for t in texts]


def judge(record: Record, before: Measured, after: Measured) -> JsonDict:
    """The record's numbers: {metric: {before, after}} in 0..1, NaN where it is not defined.

    ES, PS, NS   share with s(new) < s(true) (NS: s(true) < s(new)), s = mean token NLL
    EM, PM, NM   mean of exp(-s(new)) - exp(-s(true)) (NM: roles swapped)
    said, rephrased     greedy success on the prompt, and on paraphrases
    rel, gen, loc       teacher-forced: argmax hits on the target at the prompt and at the
                        paraphrases; argmax agreement with the unedited model on the
                        neighbours' right answers
    """
    sides = {
        side: _numbers(record, before, m) for side, m in (("before", before), ("after", after))
    }
    return {
        name: {side: numbers[name] for side, numbers in sides.items()} for name in sides["before"]
    }


def _numbers(record: Record, base: Measured, m: Measured) -> dict[str, float]:
    same = [_agree(b, a) for (_, b), (_, a) in zip(base.neighbours, m.neighbours, strict=True)]
    return {
        **_contrast("E", [m.edit]),
        **_contrast("P", m.paraphrases),
        **_contrast("N", [(right, new) for new, right in m.neighbours] if record.contrast else []),
        "said": float(m.said.hit),
        "rephrased": mean([float(s.hit) for s in m.rephrased]),
        "rel": m.edit[0].hits,
        "gen": mean([new.hits for new, _ in m.paraphrases]),
        "loc": mean(same),
    }


def _contrast(letter: str, pairs: Sequence[tuple[Score, Score | None]]) -> dict[str, float]:
    """Score and magnitude of (wanted, other) pairs: share where wanted is likelier."""
    known = [(w, o) for w, o in pairs if o is not None]
    return {
        f"{letter}S": mean([float(w.nll < o.nll) for w, o in known]),
        f"{letter}M": mean([math.exp(-w.nll) - math.exp(-o.nll) for w, o in known]),
    }


def _agree(before: Score, after: Score) -> float:
    return mean([float(b == a) for b, a in zip(before.argmax, after.argmax, strict=True)])


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def harmonic_mean(values: Sequence[float]) -> float:
    """0 when any value is 0; NaN when any is NaN."""
    if any(math.isnan(v) for v in values):
        return math.nan
    return len(values) / sum(1 / v for v in values) if all(v > 0 for v in values) else 0.0
