"""Gradient descent on the examples of an edit: what the fine-tuning methods share.

Adam on parameters that act beside the frozen weights, from Δ = 0, on the mean over the examples
of −log p(target | prompt). Nothing in the model is written, so that a run that diverges, or is
cancelled, leaves it as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks
from .above import Above, Example, nll
from .config import HParams
from .errors import DivergedLoss
from .events import EditStep, Event

if TYPE_CHECKING:
    from .lm import LM

_FAR = 20.0  # nats above where it began: a loss that comes back from there is not waited for


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
        for name in ("steps", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name!r} must be above 0, not {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Descent:
    """How it went: the loss per step, and the target's probability at the last one."""

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
    optimiser = torch.optim.Adam(parameters, lr=hp.lr, fused=lm.device.type in ("cpu", "cuda"))
    losses: list[float] = []
    p_new = 0.0
    for step in range(1, hp.steps + 1):
        with hooks.patched(lm.model, changes):
            log_p = above.log_p()
        each = nll(log_p, above.examples)
        loss = each.mean()
        losses.append(float(loss.detach()))
        check(losses[0], losses[-1], step)
        p_new = float((-each.detach()).exp().mean())
        yield EditStep(
            step=step,
            of=hp.steps,
            loss=losses[-1],
            parts={"nll": losses[-1]},
            p_new=p_new,
            p_old=p_old(above.examples, log_p),
            delta_norm=norm(),
        )
        if losses[-1] < hp.stop_loss:
            break
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if project is not None:
            project()
    if not all(bool(each.isfinite().all()) for each in parameters):
        raise diverged(f"step {len(losses)} gave values that are no numbers")
    if losses[-1] > losses[0]:
        raise diverged(f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g}")
    return Descent(tuple(losses), p_new)


def check(first: float, last: float, step: int, rate: str = "lr") -> None:
    """Raises DivergedLoss for a last loss that is no number, or far above the first.

    rate  the setting to lower then
    """
    if not math.isfinite(last):
        raise diverged(f"the loss became {last} at step {step}", rate)
    if last > first + _FAR:
        raise diverged(f"the loss rose from {first:.3g} to {last:.3g} at step {step}", rate)


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
