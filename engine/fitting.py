"""What facts that were solved together are moved by, fitted together.

A solved edit is Δ_l = A_l B_l at some layers: the rows B_l give each fact's key a share and
ordinary keys little (`closed_form.rows`), and a column of A_l is what that fact asked for on its
own, on the model as it was then. Where facts are many, some ask for more than it takes and others
are drowned out. From there all A_l go downhill at once, on facts and on text:

    min_A   mean_i s_i  +  μ E_x KL(p(·|x) ‖ p_Δ(·|x)),     s = mean_t max(0, log σ − log p_Δ(y_t))

s_i is what fact i lacks until each of its tokens has probability σ, at its prompt and, where asked
for, behind generated contexts too; x is running text, and p the model without edits. B_l stays: a
step goes along the keys that the solution was found for. Ours.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from . import contexts, hooks
from .above import Above, Example, examples, nll
from .config import HParams
from .descent import Steps, batch, looked, p_old
from .errors import BadSetting
from .events import EditStep, Event, Loading
from .patches import LowRank, changes
from .statistics import HELD_OUT, text_of

if TYPE_CHECKING:
    from .edit import Edit
    from .lm import LM

LEARNT = 0.67  # σ: of two tokens one is the likelier
FACTS = 32  # of a step
PASSAGES = 6  # of a step
LENGTH = 64  # tokens of a passage
EVERY = 3  # of its positions are compared
WARM_UP = 10  # steps


@dataclass(frozen=True, kw_only=True)
class FitParams(HParams):
    """How long to fit, how fast, and what text is worth."""

    fit: int = 0  # steps; 0: not at all
    fit_lr: float = 0.03  # Adam's, in units of the root mean square of A
    fit_contexts: int = 0  # generated texts that each prompt is asked behind, too
    text_weight: float = 1.0  # μ
    text: str = "wikipedia-vital"

    def __post_init__(self) -> None:
        for name in ("fit", "fit_contexts", "text_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name!r} must not be below 0, and is {getattr(self, name)!r}.")
        if not self.fit_lr > 0:
            raise ValueError(f"'fit_lr' must be above 0, not {self.fit_lr!r}.")


def fitted(lm: LM, edit: Edit, hp: FitParams) -> Generator[Event, None, Edit]:
    """`edit` with every A fitted, beside the patches that are active.

    edit  all its patches are `LowRank` and keep what they were solved for: solved again with the
          same ridge, they stay as they are now
    Yields EditStep, the loss being of facts that change from step to step. The last `HELD_OUT`
    passages of the text are left out, where there are more. Raises DivergedLoss; BadSetting for an
    encoder-decoder and a text without three tokens in a row; AssetUnavailable.
    """
    if lm.encoder_decoder:
        raise BadSetting("fit: an encoder-decoder's text is not its own to go on with.")
    texts = _drawn(lm, (yield from text_of(hp.text)).passages, hp.fit * PASSAGES)
    behind = yield from contexts.contexts(lm, hp.fit_contexts, seed=0, text=hp.text)
    prompts = [contexts.prompts(lm, request, behind) for request in edit.requests]
    patches = [patch for patch in edit.patches if isinstance(patch, LowRank)]
    A = [patch.A.to(lm.device, torch.float32, copy=True).requires_grad_() for patch in patches]
    B = [patch.B.to(lm.device, torch.float32) for patch in patches]
    above = Above(lm, examples(lm, edit.requests, prompts), _lowest(lm, patches))
    lacking = yield from _looked(lm, above, patches)

    optimiser = torch.optim.Adam(
        [{"params": [a], "lr": hp.fit_lr * _size(a)} for a in A], betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: _pace(done, hp.fit))
    sampler, steps = random.Random(0), Steps(optimiser, "fit_lr")
    for step in range(1, hp.fit + 1):
        chosen = _chosen(lacking, sampler)
        some = [above.examples[i] for i in chosen]
        moved = [LowRank(p.site, a, b) for p, a, b in zip(patches, A, B, strict=True)]
        acting = changes(moved, lm.device)  # anew: gradients reach A
        with hooks.patched(lm.model, acting):
            log_p = above.log_p(chosen)
        short = _short(log_p, some)
        kl = hp.text_weight * _text_kl(lm, acting, texts[(step - 1) * PASSAGES :][:PASSAGES])
        loss = short.mean() + kl
        now = steps.seen(loss)
        lacking.update(zip(chosen, short.tolist(), strict=True))
        yield EditStep(
            step=step,
            of=hp.fit,
            loss=now,
            parts={"facts": float(short.detach().mean()), "kl": float(kl.detach())},
            p_new=float((-nll(log_p, some).detach()).exp().mean()),
            p_old=p_old(some, log_p),
            delta_norm=_norm(moved),
        )
        steps.take(loss)
        schedule.step()
    steps.end()
    return dataclasses.replace(
        edit,
        patches=tuple(_moved(p, a.detach().to(p.A)) for p, a in zip(patches, A, strict=True)),
        numbers={**edit.numbers, "fit": steps.losses},
    )


def _moved(patch: LowRank, A: Tensor) -> LowRank:
    """The patch with another A, which it asks for from now on."""
    assert patch.moves is not None
    return dataclasses.replace(patch, A=A, moves=patch.moves + (A - patch.A))


@torch.no_grad()
def _norm(patches: Sequence[LowRank]) -> float:
    return math.hypot(*(patch.norm() for patch in patches))


def _size(A: Tensor) -> float:
    """Root mean square; 1 of nothing."""
    return float(A.detach().square().mean().sqrt()) or 1.0


def _short(log_p: Sequence[Tensor], examples: Sequence[Example]) -> Tensor:
    """[n] s of each fact, in nats."""
    found = []
    for own, example in zip(log_p, examples, strict=True):
        target = torch.tensor(example.target, device=own.device)
        found.append((math.log(LEARNT) - own.gather(1, target[:, None])).clamp_min(0).mean())
    return torch.stack(found)


def _text_kl(lm: LM, acting: Mapping[str, hooks.Change], texts: Sequence[Sequence[int]]) -> Tensor:
    """KL(p ‖ p_Δ) of the next token, nats, the mean over every third position of the texts."""
    ids, mask = lm.pack(texts)
    rows, columns = ((mask.cumsum(1) % EVERY == 0) & mask.bool()).nonzero(as_tuple=True)
    with torch.no_grad(), lm.bare():
        before = lm.forward(ids, mask, at=(rows, columns)).logits[0].float().log_softmax(-1)
    with hooks.patched(lm.model, acting):
        now = lm.forward(ids, mask, at=(rows, columns)).logits[0].float().log_softmax(-1)
    return functional.kl_div(now, before, reduction="batchmean", log_target=True)


def _drawn(lm: LM, passages: Sequence[str], wanted: int) -> list[tuple[int, ...]]:
    """Token ids of as many passages, in a fixed random order, over and over if need be."""
    order = list(passages[:-HELD_OUT] or passages)
    random.Random(0).shuffle(order)
    ids = (tuple(lm.statement(passage).ids[:LENGTH]) for passage in order[:wanted])
    found = [row for row in ids if len(row) >= EVERY]
    if not found:
        raise BadSetting("text: no passage has three tokens.")
    return (found * -(-wanted // len(found)))[:wanted]


def _looked(
    lm: LM, above: Above, patches: Sequence[LowRank]
) -> Generator[Event, None, dict[int, float]]:
    """What each example lacks to begin with, by its row."""
    found: dict[int, float] = {}
    rows = list(range(len(above.examples)))
    for some in looked(lm, above, rows, changes(patches, lm.device), _short, FACTS):
        found.update(some)
        yield Loading(stage="probes", done=len(found), total=len(rows), unit="prompts")
    return found


def _chosen(lacking: Mapping[int, float], sampler: random.Random) -> list[int]:
    """Half of a batch from the examples that were not learnt when last seen, the rest from any."""
    open_ = [i for i, short in lacking.items() if short > 0]
    some, others = batch(open_, lacking, FACTS, sampler, most=FACTS // 2)
    return [*some, *others]


def _pace(done: int, steps: int) -> float:
    """Of the rate: up over the first steps, then down to a twentieth."""
    return min(1.0, (done + 1) / WARM_UP) * max(0.05, 1 - (done + 1) / steps)


def _lowest(lm: LM, patches: Sequence[LowRank]) -> int:
    sites = {lm.site("mlp_out", layer): layer for layer in range(lm.n_layers)}
    return min(sites[patch.site] for patch in patches)
