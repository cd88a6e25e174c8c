"""v*: the output that makes the model say the target (Meng et al. 2022, section 3.1, eq. 4).

    L(δ) = (1/N) Σ_j NLL(target | x_j, prompt; m_j + δ)
           + κ KL(p₀ ‖ p_δ)  on "{subject} is a", read at the subject's last token
           + ω ‖δ‖ / ‖m₀‖²

minimised by Adam from δ = 0, each step projected to ‖δ‖ ≤ c ‖m₀‖. m_j is the output of the
edited layer's mlp_out at the subject's last token under context x_j. The paper takes the bare
prompt's norm for ‖m₀‖; here it is the mean over the contexts, because a subject at the very
beginning of a text can have an output much smaller than anywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import DivergedLoss
from .events import EditStep, Event
from .rerun import Full, Row, Suffix, rerun
from .tokens import Rendered, last_token, target_ids

if TYPE_CHECKING:
    from .lm import LM
    from .methods.rome import RomeParams
    from .requests import Request


@dataclass(frozen=True, eq=False)
class Value:
    """The outcome.

    keys     [n, d_ff] key of the bare prompt, then one per context
    output   [d]       mean output over all of them, W k̄ (+ bias)
    delta    [d]       v* − output
    norm0    ‖m₀‖: mean norm of the outputs over the contexts
    losses   per step
    p_new    probability of the target after the last step
    """

    keys: Tensor
    output: Tensor
    delta: Tensor
    norm0: float
    losses: tuple[float, ...]
    p_new: float


def optimise_value(
    lm: LM, request: Request, prompts: Sequence[Rendered], layer: int, hp: RomeParams
) -> Generator[Event, None, Value]:
    """Find δ for one fact. `prompts`: the bare prompt first, then one per context.

    Yields an EditStep per step. Raises SubjectNotFound, SubjectAmbiguous, DivergedLoss.
    """
    assert request.subject is not None
    rows = [_row(lm, prompt, request) for prompt in prompts]
    run = rerun(lm, [*rows, _essence(lm, request)], layer, fast=hp.fast)
    turns = _turns(len(rows), hp.turns)
    loss = _Loss(lm, request, prompts[0], run)

    keys, outputs = run.keys[:-1], run.outputs[:-1]
    output, norm0 = outputs.mean(0), float(outputs.norm(dim=1).mean())
    rate = hp.relative_lr * norm0 / math.sqrt(lm.width) if hp.lr is None else hp.lr
    delta = torch.zeros_like(output, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=rate)
    losses: list[float] = []
    p_new, sure = 0.0, [0.0] * len(turns)
    for step in range(1, hp.steps + 1):
        turn = (step - 1) % len(turns)
        total, parts, (p_new, p_bare), p_old = loss(turns[turn], delta, norm0, hp)
        sure[turn] = min(p_new, p_bare)
        losses.append(float(total.detach()))
        if not math.isfinite(losses[-1]):
            raise DivergedLoss(
                f"the loss became {losses[-1]} at step {step}.",
                "Lower the rate (--hp lr=...) or the clamp (--hp clamp=...).",
            )
        yield EditStep(
            step=step,
            of=hp.steps,
            loss=losses[-1],
            parts=parts,
            p_new=p_new,
            p_old=p_old,
            delta_norm=float(delta.detach().norm()),
        )
        if step == hp.steps or losses[-1] < hp.stop_loss or min(sure) > hp.stop_probability:
            break
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        _project(delta, hp.clamp * norm0)
    with torch.no_grad():
        delta.mul_(hp.extend)
    _project(delta, hp.clamp * norm0)
    return Value(keys, output, delta.detach(), norm0, tuple(losses), p_new)


@torch.no_grad()
def _project(delta: Tensor, longest: float) -> None:
    """‖δ‖ ≤ longest."""
    delta.mul_((longest / delta.norm().clamp_min(1e-12)).clamp_max(1))


def _turns(prompts: int, count: int) -> list[list[int]]:
    """Which prompts a step sees: the bare one (0) and every `count`-th context, the next ones
    at the next step. What a step costs falls almost by `count`.
    """
    count = max(1, min(count, prompts - 1))
    return [[0, *range(1 + turn, prompts, count)] for turn in range(count)]


class _Loss:
    """L(δ) over rows of a run, whose last row is the essence prompt."""

    def __init__(self, lm: LM, request: Request, bare: Rendered, run: Full | Suffix) -> None:
        self._run = run
        self._target = torch.tensor(target_ids(lm.tokenizer, bare, request.target_new))
        self._old = _first_of_old(lm, request, bare)
        self._essence = len(run.keys) - 1
        self._before: Tensor | None = None  # log p₀

    def __call__(
        self, prompts: Sequence[int], delta: Tensor, norm0: float, hp: RomeParams
    ) -> tuple[Tensor, dict[str, float], tuple[float, float], float]:
        """Loss, its parts, P(target) in the mean and at the bare prompt, P(old's first token).

        The first call has to be with δ = 0: the KL is measured from there.
        """
        rows = [*prompts, self._essence]
        log_p = self._run.logits(delta.expand(len(rows), -1), rows).log_softmax(-1)
        if self._before is None:
            self._before = log_p[-1].detach()
        targets = self._target.to(log_p.device).repeat(len(prompts))  # the same for every prompt
        nll = -log_p[:-1].gather(1, targets[:, None]).view(len(prompts), -1).mean(1)
        kl = (self._before.exp() * (self._before - log_p[-1])).sum()
        decay = hp.decay * delta.norm() / norm0**2
        total = nll.mean() + hp.kl * kl + decay
        with torch.no_grad():
            parts = {
                "nll": float(nll.detach().mean()),
                "kl": float(hp.kl * kl.detach()),
                "decay": float(decay.detach()),
            }
            p = (-nll).exp()
            p_new = float(p.mean()), float(p[0])
            firsts = log_p[:-1].view(len(prompts), -1, log_p.shape[-1])[:, 0]
            p_old = float(firsts[:, self._old].exp().mean()) if self._old >= 0 else math.nan
        return total, parts, p_new, p_old


def _row(lm: LM, prompt: Rendered, request: Request) -> Row:
    assert request.subject is not None
    target = target_ids(lm.tokenizer, prompt, request.target_new)
    start = len(prompt.ids)
    lookup = last_token(prompt, request.subject)
    return Row(
        (*prompt.ids, *target[:-1]), lookup, tuple(range(start - 1, start - 1 + len(target)))
    )


def _essence(lm: LM, request: Request) -> Row:
    """ "{subject} is a", cut behind the subject: what the subject is must stay as it was."""
    assert request.subject is not None
    prompt = lm.prompt(f"{request.subject} is a", chat=request.chat)
    lookup = last_token(prompt, request.subject)
    return Row(prompt.ids[: lookup + 1], lookup, (lookup,))


def _first_of_old(lm: LM, request: Request, prompt: Rendered) -> int:
    """First token of the old answer, or -1 without one or where the new one begins alike."""
    if not request.target_old:
        return -1
    old = target_ids(lm.tokenizer, prompt, request.target_old)[0]
    new = target_ids(lm.tokenizer, prompt, request.target_new)[0]
    return -1 if old == new else old
