"""Gradient descent on the examples of an edit: what the fine-tuning methods share.

Adam on parameters that act beside the frozen weights, from Δ = 0, on the mean over the examples
of −log p(target | prompt). Nothing in the model is written, so that a run that diverges, or is
cancelled, leaves it as it was. What is fitted otherwise, to a buffer or to text as well, takes the
parts of it: `Steps`, `looked`, `batch`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks
from .above import Above, Example, nll
from .config import HParams, above_zero
from .errors import DivergedLoss
from .events import EditStep, Event

if TYPE_CHECKING:
    from .lm import LM

FAR = 20.0  # nats above where it began: a loss that comes back from there is not waited for


@dataclass(frozen=True, kw_only=True)
class DescentParams(HParams):
    """Hyper-parameters of the descent, and of the examples."""

    steps: int = 25
    lr: float = 5e-4  # Adam's
    stop_loss: float = 0.01  # the descent ends below this loss
    contexts: int = 0  # generated texts put before the prompt: further examples of the fact
    end: bool = False  # statements too: the target is to end the text
    fast: bool = True  # run what is below the lowest edited layer once
    seed: int = 0  # of the contexts

    def __post_init__(self) -> None:
        above_zero(self, "steps", "lr")


@dataclass(frozen=True)
class Descent:
    """How it went: the loss that each step began with, and the target's probability at the end."""

    losses: tuple[float, ...]
    p_new: float


def descend(
    lm: LM,
    above: Above,
    parameters: Sequence[Tensor],
    changes: Mapping[str, hooks.Change],
    hp: DescentParams,
    *,
    norm: Callable[[], float],
    project: Callable[[], None] | None = None,
) -> Generator[Event, None, Descent]:
    """Fit `parameters`, which `changes` put to use at their sites.

    norm     ‖Δ‖_F over all sites, for those who watch
    project  brings the parameters back to where they may be, after each step
    Yields EditStep. Raises DivergedLoss.
    """
    steps = Steps(adam(lm, parameters, hp))
    for step in range(1, hp.steps + 1):
        with hooks.patched(lm.model, changes):
            log_p = above.log_p()
        each = nll(log_p, above.examples)
        loss = each.mean()
        now = steps.seen(loss)
        yield EditStep(
            step=step,
            of=hp.steps,
            loss=now,
            parts={"nll": now},
            p_new=_likely(each),
            p_old=p_old(above.examples, log_p),
            delta_norm=norm(),
        )
        if now < hp.stop_loss:
            break
        steps.take(loss)
        if project is not None:
            project()
    else:  # behind the last step nobody has looked yet
        steps.end()
        with torch.no_grad(), hooks.patched(lm.model, changes):
            each = nll(above.log_p(), above.examples)
    first, last = steps.losses[0], float(each.detach().mean())
    if not last <= first:
        raise diverged(f"the loss rose from {first:.3g} to {last:.3g}")
    return Descent(tuple(steps.losses), _likely(each))


def _likely(each: Tensor) -> float:
    """Mean probability of the targets, from −log p [n] of each."""
    return float((-each.detach()).exp().mean())


def adam(lm: LM, parameters: Sequence[Tensor], hp: DescentParams) -> torch.optim.Adam:
    """Adam at the rate of `hp`."""
    return torch.optim.Adam(parameters, lr=hp.lr, fused=lm.device.type in ("cpu", "cuda"))


class Steps:
    """The steps of an optimiser, none of them taken without a look at the loss.

    losses  so far
    rate    the setting to lower where they diverge
    """

    def __init__(self, optimiser: torch.optim.Optimizer, rate: str = "lr") -> None:
        self.losses: list[float] = []
        self._optimiser = optimiser
        self._rate = rate

    def seen(self, loss: Tensor) -> float:
        """The loss that the step to come goes down. Raises DivergedLoss: see `check`."""
        self.losses.append(float(loss.detach()))
        check(self.losses[0], self.losses[-1], len(self.losses), self._rate)
        return self.losses[-1]

    def take(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def end(self) -> None:
        """Raises DivergedLoss for parameters that are no numbers: behind the last step there is
        no loss to tell."""
        groups = self._optimiser.param_groups
        if not all(bool(each.isfinite().all()) for group in groups for each in group["params"]):
            what = f"step {len(self.losses)} gave values that are no numbers"
            raise diverged(what, self._rate)


def check(first: float, last: float, step: int, rate: str = "lr") -> None:
    """Raises DivergedLoss for a last loss that is no number, or far above the first.

    rate  the setting to lower then
    """
    if not math.isfinite(last):
        raise diverged(f"the loss became {last} at step {step}", rate)
    if last > first + FAR:
        raise diverged(f"the loss rose from {first:.3g} to {last:.3g} at step {step}", rate)


def looked(
    lm: LM,
    above: Above,
    rows: Sequence[int],
    changes: Mapping[str, hooks.Change],
    score: Callable[[Sequence[Tensor], Sequence[Example]], Tensor],
    size: int,
) -> Iterator[list[tuple[int, float]]]:
    """The score [n] of examples as things stand, `size` of them at a time: each row of `above`
    with its own."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        with torch.no_grad(), hooks.patched(lm.model, changes):
            found = score(above.log_p(some), [above.examples[i] for i in some])
        yield list(zip(some, found.tolist(), strict=True))


def batch(
    open_: Sequence[int],
    rows: Collection[int],
    size: int,
    sampler: random.Random,
    *,
    most: int | None = None,
) -> tuple[list[int], list[int]]:
    """Rows for a step: open ones, at most `most` (None: `size`), and others that fill it up."""
    chosen = sampler.sample(open_, min(size if most is None else most, len(open_)))
    others = sorted(set(rows) - set(chosen))
    return chosen, sampler.sample(others, min(size - len(chosen), len(others)))


def p_old(examples: Sequence[Example], log_p: Sequence[Tensor]) -> float:
    """Mean probability of the old answers' first tokens; NaN where none is known."""
    with torch.no_grad():
        found = [
            float(own[0, example.old].exp())
            for own, example in zip(log_p, examples, strict=True)
            if example.old >= 0
        ]
    return sum(found) / len(found) if found else math.nan


def diverged(what: str, rate: str = "lr") -> DivergedLoss:
    return DivergedLoss(f"{what}; the model is as it was.", f"Lower the rate: --hp {rate}=...")
