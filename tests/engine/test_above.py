"""Running the layers from the trained one up gives what running the whole model gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine import hooks
from engine.above import Above, Example, example, nll
from engine.arch import weight_of
from engine.lm import LM
from engine.requests import Request
from tests.tiny import FAMILIES

from .support import shared_lm, state, traces

REQUESTS = (
    Request(prompt="The Space Needle is in the city of", target_new="Paris", target_old="Seattle"),
    Request(prompt="Who wrote Emma?", target_new="The president of São Paulo"),
    Request(prompt="Sydney", target_new="is"),
)


def examples(lm: LM, **how: Any) -> list[Example]:
    return [example(lm, lm.statement(r.prompt), r, **how) for r in REQUESTS]


def trained(lm: LM, layer: int) -> tuple[str, Tensor]:
    site = lm.site("mlp_out", layer)
    shape = weight_of(lm.model.get_submodule(site), lm.arch).shape
    return site, 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def sharp(lm: LM) -> Iterator[None]:
    """Logits eight times as large: without it no change at all makes a tiny model sure."""
    with hooks.patched(lm.model, {lm.arch.lm_head: lambda _x, y: 8 * y}):
        yield


def naive(lm: LM, given: Example) -> Tensor:
    """The plain model, on this example alone."""
    fed = torch.tensor([given.fed])
    out = (
        lm.model(input_ids=torch.tensor([given.encoded]), decoder_input_ids=fed)
        if lm.encoder_decoder
        else lm.model(fed)
    )
    found: Tensor = out.logits[0, list(given.wanted)].log_softmax(-1)
    return found


def felt(lm: LM, site: str, start: Tensor, run: Any, given: list[Example]) -> tuple[Tensor, Any]:
    """Losses with Δ at a site, and their gradient there."""
    delta = start.clone().requires_grad_(True)

    def add(x: Tensor, y: Tensor) -> Tensor:
        return y + functional.linear(x, delta)

    with hooks.patched(lm.model, {site: add}):
        losses = nll(run(), given)
    losses.sum().backward()
    return losses.detach(), delta.grad


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_whole_model(
    family: str, layer: int, fast: bool
) -> None:
    lm = shared_lm(family)
    before = state(lm.model)
    given = examples(lm)
    above = Above(lm, given, layer, fast=fast)
    site, start = trained(lm, layer)
    for of in (None, [2], [1, 0]):
        chosen = given if of is None else [given[i] for i in of]
        found = felt(lm, site, start, lambda of=of: above.log_p(of), chosen)
        wanted = felt(lm, site, start, lambda c=chosen: [naive(lm, each) for each in c], chosen)
        for a, b in zip(found, wanted, strict=True):
            assert torch.allclose(a, b, atol=1e-4), (family, of)
    assert traces(lm.model) == {}
    assert state(lm.model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_can_be_added(family: str) -> None:
    lm = shared_lm(family)
    short, long, other = examples(lm)[2], examples(lm)[1], examples(lm)[0]
    above = Above(lm, (), 1)
    assert above.rows([short]) == [0]
    assert above.rows([long, short, other, long]) == [1, 0, 2, 1]
    assert len(above.examples) == 3
    with torch.no_grad():
        found = above.log_p([1, 0])
    for own, each in zip(found, (long, short), strict=True):
        assert torch.allclose(own, naive(lm, each), atol=1e-4)


def test_what_is_below_runs_once() -> None:
    lm = shared_lm("llama", layers=3)
    above = Above(lm, examples(lm), 2)
    with hooks.capture(lm.model, lm.site("mlp_out", 1)) as below, torch.no_grad():
        above.log_p()
    assert below == {}


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_every_token_at_its_own_position_or_all_at_the_last(family: str) -> None:
    lm = shared_lm(family)
    (own, *_), (last, *_) = examples(lm), examples(lm, own=False)
    prompt = lm.statement(REQUESTS[0].prompt)
    before = (lm.model.config.decoder_start_token_id,) if family == "t5" else prompt.ids
    assert own.fed == (*before, *own.target[:-1])
    assert own.wanted == tuple(range(len(before) - 1, len(own.fed)))
    assert (last.fed, last.target) == (before, own.target)
    assert last.wanted == (len(before) - 1,) * len(own.target)
    assert own.encoded == (prompt.ids if family == "t5" else ())


def test_the_end_of_the_text_is_part_of_the_target_where_it_is_asked_for() -> None:
    lm = shared_lm("llama", chat=True)
    eos = lm.tokenizer.eos_token_id
    plain, ended = (examples(lm, end=end)[0].target for end in (False, True))
    assert ended == (*plain, eos)
    asked = lm.render("Who wrote Emma?")
    assert example(lm, asked, REQUESTS[1], end=True).target[-1:] == asked.ending


def test_the_old_answer_counts_where_it_begins_otherwise() -> None:
    lm = shared_lm("gpt2")
    old = [each.old for each in examples(lm)]
    assert old[0] == lm.tokenizer(" Seattle")["input_ids"][0]
    assert old[1:] == [-1, -1]
    same = Request(prompt="It is", target_new="Paris", target_old="Paris, France")
    assert example(lm, lm.statement("It is"), same).old == -1
