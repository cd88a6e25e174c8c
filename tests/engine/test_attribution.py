"""Integrated gradients of the neurons, against a loop that runs whole sequences one by one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import attribution, hooks
from engine.attribution import RADAU, Points, attributions, equal
from engine.lm import LM
from engine.patches import LowRank
from tests.tiny import CAUSAL, FAMILIES

from .support import close_after, finish, shared_lm, state, traces

PROMPTS = ("The Space Needle is in the city of", "Emma? The Space Needle is in", "Paris")


def prompts_of(lm: LM) -> list[tuple[int, ...]]:
    return [lm.statement(text).ids for text in PROMPTS]


def probability(lm: LM, prompt: Sequence[int], said: Sequence[int], token: int) -> Tensor:
    """p(token) by the plain model, whole sequence, one row."""
    if lm.encoder_decoder:
        start = lm.model.config.decoder_start_token_id
        decoder = torch.tensor([[start, *said]])
        logits = lm.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits
    else:
        logits = lm.model(torch.tensor([[*prompt, *said]])).logits
    return logits[0, -1].softmax(-1)[token]


def naive(
    lm: LM, prompts: Sequence[Sequence[int]], answer: Sequence[int], points: Points
) -> Tensor:
    """Every layer, prompt, token and point by itself, through the whole model."""
    found = torch.zeros(len(prompts), lm.n_layers, lm.arch.mlp_width)
    for k, prompt in enumerate(prompts):
        for layer in range(lm.n_layers):
            site = lm.site("mlp_out", layer)
            for i, token in enumerate(answer):
                with hooks.capture(lm.model, site, inputs=True) as seen, torch.no_grad():
                    probability(lm, prompt, answer[:i], token)
                plain = seen[site].reshape(-1, lm.arch.mlp_width)[-1]
                for at, weight in zip(points.at, points.weights, strict=True):
                    leaf = (at * plain).requires_grad_()

                    def put(x: Tensor, leaf: Tensor = leaf) -> Tensor:
                        rows = x.reshape(-1, x.shape[-1])
                        return torch.cat([rows[:-1], leaf[None]]).view(x.shape)

                    with hooks.rewritten_input(lm.model, site, put):
                        p = probability(lm, prompt, answer[:i], token)
                    (gradient,) = torch.autograd.grad(p, leaf)
                    found[k, layer] += weight * plain * gradient / len(answer)
    return found


def attr(lm: LM, answer: Sequence[int] = (7, 5), **more: Any) -> Tensor:
    return finish(attributions(lm, prompts_of(lm), answer, **more))[1].scores


def agree(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a - b).norm()) < tolerance * float(b.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_position_alone_gives_what_whole_sequences_give(family: str) -> None:
    lm = shared_lm(family)
    weights = state(lm.model)
    wanted = naive(lm, prompts_of(lm), (7, 5), equal(4))
    assert float(wanted.abs().max()) > 1e-7
    for fast in (True, False):
        assert agree(attr(lm, steps=4, tolerance=None, fast=fast), wanted)
    assert (state(lm.model), traces(lm.model)) == (weights, {})


@pytest.mark.parametrize("family", CAUSAL)
def test_three_readings_are_the_rule_they_are_said_to_be(family: str) -> None:
    lm = shared_lm(family)
    assert agree(attr(lm, tolerance=1e9), naive(lm, prompts_of(lm), (7, 5), RADAU))


def test_layers_that_do_not_add_up_are_read_in_equal_steps() -> None:
    lm = shared_lm("gpt2")
    assert agree(attr(lm, steps=6, tolerance=-1.0), attr(lm, steps=6, tolerance=None))
    three, six = attr(lm, (7,), steps=6, tolerance=1e9), attr(lm, (7,), steps=6, tolerance=None)
    rough = missed(lm, three)
    middle = float(rough.flatten().sort().values[len(rough.flatten()) // 2])
    mixed = attr(lm, (7,), steps=6, tolerance=middle)
    for k in range(len(PROMPTS)):
        for layer in range(lm.n_layers):
            source = six if rough[k, layer] > middle else three
            assert agree(mixed[k, layer], source[k, layer])


def test_what_rounding_may_miss_is_not_read_again() -> None:
    shared = shared_lm("gpt2")
    half = copy.deepcopy(shared.model).to(torch.bfloat16)
    lm = LM(half, shared.tokenizer, name="half", fingerprint="0" * 64)
    assert torch.equal(attr(lm, tolerance=0.0), attr(lm, tolerance=1e9))
    assert not torch.equal(attr(shared, tolerance=0.0), attr(shared, tolerance=1e9))


@torch.no_grad()
def missed(lm: LM, found: Tensor) -> Tensor:
    """How far a layer is from adding up, as a share of p: [prompts, layers]."""
    rows = []
    for prompt, own in zip(prompts_of(lm), found, strict=True):
        whole = probability(lm, prompt, (), 7)
        for layer in range(lm.n_layers):

            def without(x: Tensor) -> Tensor:
                rows = x.reshape(-1, x.shape[-1]).clone()
                rows[-1] = 0
                return rows.view(x.shape)

            with hooks.rewritten_input(lm.model, lm.site("mlp_out", layer), without):
                worth = whole - probability(lm, prompt, (), 7)
            rows.append(float((own[layer].sum() - worth).abs() / whole))
    return torch.tensor(rows).view(len(PROMPTS), -1)


def test_many_steps_add_up_to_what_a_layer_is_worth() -> None:
    """Completeness: what makes the check above one."""
    lm = shared_lm("llama")
    assert float(missed(lm, attr(lm, (7,), steps=200, tolerance=None)).max()) < 0.01


@pytest.mark.parametrize("family", ["opt", "falcon", "gemma3_text", "t5"])
def test_activations_are_those_behind_the_prompt(family: str) -> None:
    lm = shared_lm(family)
    found = finish(attributions(lm, prompts_of(lm), (7, 5), steps=1))[1].activations
    for prompt, own in zip(prompts_of(lm), found, strict=True):
        for layer in range(lm.n_layers):
            site = lm.site("mlp_out", layer)
            with hooks.capture(lm.model, site, inputs=True) as seen, torch.no_grad():
                probability(lm, prompt, (), 7)
            assert agree(own[layer], seen[site].reshape(-1, lm.arch.mlp_width)[-1])


def test_three_readings_integrate_up_to_the_fourth_degree() -> None:
    for degree in range(5):
        total = sum(w * x**degree for x, w in zip(RADAU.at, RADAU.weights, strict=True))
        assert total == pytest.approx(1 / (degree + 1))
    assert RADAU.at[0] == 0
    assert equal(4) == Points((0.25, 0.5, 0.75, 1.0), (0.25,) * 4)


@pytest.mark.parametrize("room", [1, 5, 7])
def test_how_many_rows_share_a_pass_changes_nothing(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm("gemma2", layers=5)
    wanted = attr(lm, tolerance=0.01)
    monkeypatch.setattr(attribution, "ROWS", room)
    assert agree(attr(lm, tolerance=0.01), wanted)


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "gpt_neo"])
def test_beyond_a_sliding_window(family: str) -> None:
    window = {"window_size": 5} if family == "gpt_neo" else {"sliding_window": 5}
    lm = shared_lm(family, **window)
    wanted = naive(lm, prompts_of(lm), (7,), equal(2))
    assert agree(attr(lm, (7,), steps=2, tolerance=None), wanted)


def test_edits_that_are_active_are_part_of_the_model() -> None:
    lm = shared_lm("llama")
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(lm.width, 1, generator=generator)
    B = torch.randn(1, lm.arch.mlp_width, generator=generator)
    plain = attr(lm, tolerance=None, steps=2)
    with lm.active([LowRank(lm.site("mlp_out", 1), A, B)]):
        found = attr(lm, tolerance=None, steps=2)
        assert agree(found, naive(lm, prompts_of(lm), (7, 5), equal(2)))
    assert not agree(found, plain, 0.1)


@pytest.mark.parametrize("fast", [True, False])
def test_cancelling_leaves_nothing(fast: bool) -> None:
    lm = shared_lm("opt")
    before = state(lm.model)
    for count in (1, 2):
        events = close_after(attributions(lm, prompts_of(lm), (7, 5), fast=fast), count)
        assert [e.kind for e in events] == ["Loading"] * count
        assert (state(lm.model), traces(lm.model)) == (before, {})
