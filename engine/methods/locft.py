"""LocFT-BF: located fine-tuning, breadth first over everything edited so far (ICLR 2026).

One matrix, FT-M's loss, and the end of the text as part of every target. What is fitted is not
the new fact alone but the buffer: the facts of all active edits of this method and the new one.
Training starts from what they left (warm), so that the patch is the step from there, and undo
takes just that step back.

Published: shuffled mini-batches of the whole buffer, epoch after epoch, until the mean loss is
small. Here a batch holds the facts that are still open, filled up with others from the buffer;
when none of them is open any more, the whole buffer is looked at for facts that came undone. The
loss is the same, and facts that hold cost a look (ours).
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import hooks
from ..above import Above, Example, nll, placed
from ..descent import Steps, adam, batch, looked, p_old
from ..edit import Edit
from ..events import EditStep, Event, Note
from ..patches import Dense, Patch, kept_of
from .ft import FtParams, beside, zeros
from .posing import posed

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, kw_only=True)
class LocFtParams(FtParams):
    """Hyper-parameters; see hparams/locft-bf/*.yaml. `steps` are those of one round."""

    end: bool = True
    batch: int = 100  # facts of a step
    rounds: int = 25  # looks at the whole buffer, with steps in between

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored != "own" or len(self.layers) != 1:
            raise ValueError("LocFT-BF trains one layer, and scores tokens where they belong.")
        if self.batch < 1 or self.rounds < 1:
            raise ValueError("'batch' and 'rounds' must be at least 1.")


def locft_bf(lm: LM, requests: Sequence[Request], hp: LocFtParams) -> Generator[Event, None, Edit]:
    """LocFT-BF. Any number of requests, on top of the active edits of the method."""
    (layer,) = hp.layers
    site = lm.site("mlp_out", layer)
    facts = yield from posed(lm, requests, hp, (site,), "locft-bf")
    fresh = facts.examples
    asked = {each.prompt for each in fresh}
    past = [each for each in _past(lm, site) if each.prompt not in asked]  # of a batch: replaced
    kept = _taken(lm, layer, len(past) + len(fresh), fast=hp.fast)
    above = kept.above
    rows = above.rows([*fresh, *past])
    lm.kept["locft-bf"] = kept
    yield Note(text=f"{site}: fitted to {len(past)} examples of earlier edits as well")
    measured = time.perf_counter()

    delta = zeros(lm, site)
    losses = yield from _fit(lm, above, rows, len(fresh), site, delta, hp)
    patch = Dense(site, delta.detach().to(getattr(torch, hp.store)), _facts(fresh))
    n = len(past)
    return facts.edit([patch], losses, measured, {"buffer": float(n)}, layers=[layer], buffer=n)


def _fit(
    lm: LM, above: Above, rows: list[int], fresh: int, site: str, delta: Tensor, hp: LocFtParams
) -> Generator[Event, None, list[float]]:
    """Until every example of the buffer is below the loss at which it counts as learnt.

    rows   of `above`: those of the new facts, `fresh` of them, and the past ones
    Returns the mean loss of the batch per step. Raises DivergedLoss.
    """
    sampler = random.Random(hp.seed)
    steps = Steps(adam(lm, [delta], hp))
    open_ = rows[:fresh]
    for round_ in range(hp.rounds):
        for step in range(1, hp.steps + 1):
            chosen, others = batch(open_, rows, hp.batch, sampler)
            some = [*chosen, *others]
            with hooks.patched(lm.model, {site: beside(delta)}):
                log_p = above.log_p(some)
            run = [above.examples[i] for i in some]
            each = nll(log_p, run)
            loss = each.mean()
            now = steps.seen(loss)
            yield EditStep(
                step=round_ * hp.steps + step,
                of=hp.rounds * hp.steps,
                loss=now,
                parts={"nll": now},
                p_new=float((-each.detach()[: len(chosen)]).exp().mean()),
                p_old=p_old(run[: len(chosen)], log_p[: len(chosen)]),
                delta_norm=float(delta.detach().norm()),
            )
            if bool((each.detach()[: len(chosen)] < hp.stop_loss).all()):
                break
            steps.take(loss)
            if hp.epsilon is not None:
                delta.detach().clamp_(-hp.epsilon, hp.epsilon)
        open_ = yield from _open(lm, above, rows, site, delta, hp)
        if not open_:
            return steps.losses
    steps.end()
    yield Note(text=f"{len(open_)} of {len(rows)} examples are not learnt after {hp.rounds} rounds")
    return steps.losses


def _open(
    lm: LM, above: Above, rows: list[int], site: str, delta: Tensor, hp: LocFtParams
) -> Generator[Event, None, list[int]]:
    """The examples that are not learnt, or not any more."""
    found: list[tuple[int, float]] = []
    for some in looked(lm, above, rows, {site: beside(delta)}, nll, hp.batch):
        found += some
        if len(rows) > hp.batch:
            yield Note(text=f"looked at {len(found)} of {len(rows)}")
    return [i for i, loss in found if not loss < hp.stop_loss]


# -- the buffer ---------------------------------------------------------------------------------

_PAD = -1
_SPARE = 256  # examples that nobody needs any more


def _facts(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Ids [n, t] of the examples' prompts and targets, for later edits."""
    return {
        "prompts": _padded([each.prompt for each in examples]),
        "targets": _padded([each.target for each in examples]),
    }


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[_PAD] * (longest - len(row))] for row in rows])


def _past(lm: LM, site: str) -> list[Example]:
    """The examples that the active edits of this method were fitted to; of a prompt that was
    edited again, as one fact of a batch, the last."""
    found = {}
    for asked, wanted in kept_of(lm.patches, site, "prompts", "targets"):
        for prompt, target in zip(asked.tolist(), wanted.tolist(), strict=True):
            ids = ([i for i in row if i != _PAD] for row in (prompt, target))
            each = placed(lm, *ids)
            found[each.prompt] = each
    return list(found.values())


def _taken(lm: LM, layer: int, needed: int, *, fast: bool) -> _Kept:
    """The examples of the buffer, and what the layer is given for them; to be kept once the new
    ones are among them, for what is half added is of no use.

    Good from edit to edit as long as the patches below are the same ones, and not much longer
    than it is needed. (T5's examples cannot be added to.)
    """
    blocks = tuple(f"{lm.site('block', i)}." for i in range(layer))
    below = tuple(patch for patch in lm.patches if patch.site.startswith(blocks))
    kept = lm.kept.pop("locft-bf", None)
    if (
        isinstance(kept, _Kept)
        and (kept.layer, kept.fast, kept.below) == (layer, fast, below)
        and len(kept.above.examples) <= 4 * needed + _SPARE
        and not lm.encoder_decoder
    ):
        return kept
    return _Kept(layer, fast, below, Above(lm, (), layer, fast=fast))


@dataclass(frozen=True, eq=False)
class _Kept:
    layer: int
    fast: bool
    below: tuple[Patch, ...]  # compared by identity
    above: Above
