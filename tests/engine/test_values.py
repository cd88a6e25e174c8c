"""Contexts that take turns, and when the optimisation stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine import contexts
from engine.events import EditStep, Event
from engine.methods.rome import RomeParams
from engine.requests import Request
from engine.values import Value, optimise_value

from .support import shared_lm

REQUEST = Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris")
TEXTS = ("The old tower", "Because the people", "Emma wrote", "In the north")


def optimise(**changes: Any) -> tuple[list[Event], Value]:
    lm = shared_lm("llama")
    hp = RomeParams(**{"layer": 0, "steps": 4, "relative_lr": 1.0, **changes})
    run = optimise_value(lm, REQUEST, contexts.prompts(lm, REQUEST, TEXTS), 0, hp)
    events: list[Event] = []
    while True:
        try:
            events.append(next(run))
        except StopIteration as stop:
            return events, stop.value


@pytest.mark.parametrize("turns", [2, 3, 4, 9])
def test_taking_turns_leaves_no_context_out(turns: int) -> None:
    _, together = optimise()
    _, apart = optimise(turns=turns)
    assert apart.keys.shape == together.keys.shape == (5, shared_lm("llama").arch.mlp_width)
    assert torch.allclose(apart.keys[0], together.keys[0], atol=1e-5)  # the bare prompt's first
    assert torch.allclose(apart.keys.mean(0), together.keys.mean(0), atol=1e-5)
    assert torch.allclose(apart.output, together.output, atol=1e-5)
    assert apart.norm0 == pytest.approx(together.norm0, rel=1e-5)


def test_every_turn_sees_the_bare_prompt_and_its_own_contexts() -> None:
    events, _ = optimise(turns=2, lr=0.0)
    seen = [e.parts["nll"] for e in events if isinstance(e, EditStep)]
    assert seen[0] == pytest.approx(seen[2], abs=1e-6)  # δ stays 0: the same turn, the same loss
    assert seen[1] == pytest.approx(seen[3], abs=1e-6)
    whole = next(e.parts["nll"] for e in optimise(lr=0.0)[0] if isinstance(e, EditStep))
    assert seen[0] != pytest.approx(whole, abs=1e-6)


def test_it_goes_on_until_every_turn_is_sure() -> None:
    sure, _ = optimise(stop_probability=0.0)
    assert len(sure) == 1
    both, _ = optimise(turns=2, stop_probability=0.0)
    assert len(both) == 2  # the second turn had not been asked after the first step
