"""A correction of a tiny model run to its end, and what the model says with it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine.correct import correct
from engine.events import Event
from engine.ledger import Ledger
from engine.lm import LM
from engine.outcome import Outcome
from engine.requests import Request

from .support import NEAR, QUESTION, finish

PROMPTS = ("The capital of England is", "Who wrote Emma?", NEAR.prompt, QUESTION.prompt)


def run(
    lm: LM, hp: dict[str, str], request: Request = NEAR, ledger: Ledger | None = None, **more: Any
) -> tuple[list[Event], Outcome]:
    ledger = Ledger() if ledger is None else ledger
    more = {"method": "r-rome"} | more
    return finish(correct(lm, ledger, request, overrides=hp, **more))


def logits(lm: LM, ledger: Ledger) -> Tensor:
    with lm.active(ledger.patches()):
        return lm.logits([lm.statement(text) for text in PROMPTS])
