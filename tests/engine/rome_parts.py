"""ROME and R-ROME run on tiny models, and the parts of an edit computed anew."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from engine import contexts, hooks
from engine.edit import Edit
from engine.events import EditStep, Event
from engine.lm import LM
from engine.methods.rome import RomeParams, r_rome, rome
from engine.requests import Request
from engine.tokens import Rendered, last_token, target_ids
from engine.values import Value

from .support import finish, optimise_value

REQUEST = Request(
    prompt="The Space Needle is in the city of",
    subject="Space Needle",
    target_new="Paris",
    target_old="Seattle",
)
RUNS = {"rome": rome, "r-rome": r_rome}


def params(text: str, **changes: Any) -> RomeParams:
    """Random models need long steps: their subjects hardly reach their answers."""
    own = {"layer": 0, "contexts": 2, "steps": 8, "text": text, "tokens": 10_000}
    free = {"relative_lr": 1.0, "clamp": 50.0, "kl": 0.01, "decay": 1e-4}
    return RomeParams(**(own | free | changes))


def run(
    lm: LM, hp: RomeParams, request: Request = REQUEST, method: str = "r-rome"
) -> tuple[list[Event], Edit]:
    return finish(RUNS[method](lm, [request], hp))


def prompts_of(lm: LM, edit: Edit) -> list[Rendered]:
    return contexts.prompts(lm, edit.requests[0], tuple(edit.provenance["contexts"]))


@torch.no_grad()
def keys_and_outputs(lm: LM, edit: Edit) -> tuple[Tensor, Tensor]:
    """Keys [n, d_ff] and outputs [n, d] at the subject's last token, a prompt at a time."""
    assert edit.requests[0].subject is not None
    site = edit.patches[0].site
    keys, outputs = [], []
    for prompt in prompts_of(lm, edit):
        at = last_token(prompt, edit.requests[0].subject)
        for kept, inputs in ((keys, True), (outputs, False)):
            with hooks.capture(lm.model, site, inputs=inputs, stop=True) as seen:
                lm.model(torch.tensor([prompt.ids]))
            kept.append(seen[site].reshape(len(prompt.ids), -1)[at])
    return torch.stack(keys), torch.stack(outputs)


def value_of(lm: LM, edit: Edit, hp: RomeParams) -> Value:
    """The same optimisation again: it is deterministic."""
    _, value = finish(optimise_value(lm, edit.requests[0], prompts_of(lm, edit), hp))
    return value


@torch.no_grad()
def probability(lm: LM, edit: Edit, *, patched: bool) -> float:
    """Of the target after the bare prompt, geometric mean over its tokens."""
    prompt = prompts_of(lm, edit)[0]
    target = target_ids(lm.tokenizer, prompt, edit.requests[0].target_new)
    ids = torch.tensor([[*prompt.ids, *target[:-1]]])
    with lm.active(edit.patches if patched else ()):
        log_p = lm.model(ids).logits[0, len(prompt.ids) - 1 :].log_softmax(-1)
    return math.exp(sum(float(log_p[i, t]) for i, t in enumerate(target)) / len(target))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a - b).detach().norm()) < tolerance * max(1.0, float(b.detach().norm()))


def losses(events: list[Event]) -> list[float]:
    return [e.loss for e in events if isinstance(e, EditStep)]
