"""Readings of two states of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.compare import read
from engine.patches import LowRank
from engine.render import question

PROMPTS = ("Where is the Space Needle?", "Who was Emma?", "The tower")


def patch(lm: Any, size: float = 4.0) -> LowRank:
    """A change large enough to be seen in what a random model says."""
    site = lm.site("mlp_out", 1)
    linear = lm.model.get_submodule(site)
    out, inn = (linear.out_features, linear.in_features)
    generator = torch.Generator().manual_seed(1)
    A = size * torch.randn(out, 1, generator=generator)
    return LowRank(site, A, torch.randn(1, inn, generator=generator))


@pytest.fixture
def lm(tiny_lm: Callable[..., Any]) -> Any:
    return tiny_lm("llama")


def rendered(lm: Any) -> list[Any]:
    return [question(lm.tokenizer, text) for text in PROMPTS]


def test_the_likeliest_tokens_are_those_of_the_logits(lm: Any) -> None:
    prompts = rendered(lm)
    readings = read(lm, (), prompts, max_tokens=6, top=5)
    expected = lm.logits(prompts).softmax(-1)
    for row, reading in zip(expected, readings, strict=True):
        chances = [p for _, p in reading.top]
        assert chances == sorted(row.tolist(), reverse=True)[:5]
        assert reading.top[0][0] == lm.tokenizer.decode([int(row.argmax())])
    assert [r.answer for r in readings] == lm.answers(prompts, max_tokens=6)


def test_states_differ_and_nothing_of_them_is_left(lm: Any) -> None:
    prompts = rendered(lm)
    before = lm.logits(prompts)
    edited = patch(lm)
    plain, changed = read(lm, (), prompts), read(lm, [edited], prompts)
    assert [r.top for r in plain] != [r.top for r in changed]
    assert torch.equal(lm.logits(prompts), before)
    assert read(lm, (), prompts) == plain
    with lm.active([edited]):
        live = lm.logits(prompts)
        assert [r.top for r in read(lm, (), prompts[:0])] == []
    assert not torch.equal(live, before)


def test_an_encoder_decoder_is_read_too(tiny_lm: Callable[..., Any]) -> None:
    lm = tiny_lm("t5")
    (reading,) = read(lm, (), [lm.render("Who was Emma?")], max_tokens=4, top=3)
    assert len(reading.top) == 3


def test_reading_can_be_stopped_between_tokens(lm: Any) -> None:
    prompts = rendered(lm)
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(len(asked))
        return len(asked) == 2

    cut = read(lm, (), prompts, max_tokens=40, stopped=stopped)
    assert len(asked) == 2
    whole = read(lm, (), prompts, max_tokens=40)
    assert [r.top for r in cut] == [r.top for r in whole]
    assert all(len(a.answer) < len(b.answer) for a, b in zip(cut, whole, strict=True))
