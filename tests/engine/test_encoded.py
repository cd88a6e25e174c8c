"""ROME and R-ROME where an encoder reads the subject, against their equations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine import anchors, contexts, correct, methods
from engine.arch import weight_of
from engine.edit import Edit
from engine.events import EditStep, Event
from engine.lm import LM
from engine.methods.rome import RomeParams, r_rome
from engine.requests import Request
from engine.rerun import Row
from engine.statistics import Statistics
from engine.tokens import Rendered, last_token, target_ids

from .encoders import FAMILIES, naive, seen, site_of, start
from .rome_parts import RUNS, close, params, prompts_of
from .support import CORPUS, close_after, finish, optimise_value, shared_lm, state, traces

REQUEST = Request(
    prompt="Where is the Space Needle in the city of England?",
    subject="Space Needle",
    target_new="Paris",
    target_old="Seattle",
    chat=True,
)


def run(lm: LM, hp: RomeParams, method: str = "r-rome") -> tuple[list[Event], Edit]:
    return finish(RUNS[method](lm, [REQUEST], hp))


# -- the equations ------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("method", RUNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_key_is_mapped_to_the_value_by_the_closed_form(
    family: str, method: str, layer: int, text: str
) -> None:
    """(W + Δ)k = v* with Δ = δ(C⁻¹k̄)ᵀ/(kᵀC⁻¹k̄), every part computed anew, in float64."""
    lm = shared_lm(family)
    hp = params(text, layer=layer)
    _, edit = run(lm, hp, method)
    prompts = prompts_of(lm, edit)
    assert len(prompts) == 3
    site = site_of(lm, layer)
    at = [last_token(p, "Space Needle") for p in prompts]
    keys, outputs = (
        torch.stack([seen(lm, site, p.ids, inputs=i)[a] for p, a in zip(prompts, at, strict=True)])
        for i in (True, False)
    )
    _, value = finish(optimise_value(lm, REQUEST, prompts, hp))
    assert float(value.delta.norm()) > 0.1
    k = keys.mean(0) if method == "r-rome" else keys[0]
    (patch,) = edit.patches
    assert (patch.site, patch.rank) == (site, 1)
    module = lm.model.get_submodule(site)
    before = module(k)
    with lm.active(edit.patches):
        assert close(module(k), before + value.delta)
    if method == "r-rome":
        assert close(before, outputs.mean(0))
    C = second_moment(lm, site)
    u = torch.linalg.solve(C, keys.mean(0).double())
    found = patch.A.double() @ patch.B.double()
    assert found.shape == weight_of(module, lm.arch).shape
    assert close(found, torch.outer(value.delta.double(), u) / (k.double() @ u), 1e-3)


def second_moment(lm: LM, site: str) -> Tensor:
    """E[kkᵀ] of the encoder's keys, a passage at a time, with the ridge that is always added."""
    found = torch.cat([seen(lm, site, lm.statement(t).ids, inputs=True) for t in CORPUS]).double()
    C = found.T @ found / len(found)
    return C + 1e-6 * C.diagonal().mean() * torch.eye(len(C))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_statistics_are_the_encoders_under_its_own_name(family: str, text: str) -> None:
    lm = shared_lm(family)
    _, found = finish(Statistics(lm).moments([0, 1], text=text, tokens=10_000))
    for layer, moment in found.items():
        assert torch.allclose(moment.C.double(), second_moment(lm, site_of(lm, layer)), atol=1e-5)
        assert moment.file is not None
        assert moment.file.name.startswith(site_of(lm, layer))


def test_the_loss_is_the_published_one(text: str) -> None:
    """At δ = 0 and at the end; NLL at the decoder's positions, the KL where it begins."""
    lm = shared_lm("t5-gated")
    hp = params(text, kl=0.5, decay=0.05)
    events, edit = run(lm, hp)
    steps = [e for e in events if isinstance(e, EditStep)]
    prompts = prompts_of(lm, edit)
    _, value = finish(optimise_value(lm, REQUEST, prompts, hp))

    def log_p(prompt: Rendered, target: Sequence[int], added: Tensor) -> Tensor:
        row = Row(prompt.ids, last_token(prompt, "Space Needle"), (), (start(lm), *target[:-1]))
        row = dataclasses.replace(row, wanted=tuple(range(len(row.decoded))))
        with torch.no_grad():
            return naive(lm, [row], site_of(lm, 0), added[None]).log_softmax(-1)

    essence = lm.prompt("Space Needle is a", chat=True)
    for step, delta in ((steps[0], value.delta * 0), (steps[-1], value.delta)):
        nll, old = [], []
        for prompt in prompts:
            target = target_ids(lm.tokenizer, prompt, "Paris")
            assert target[-1] == lm.tokenizer.eos_token_id
            found = log_p(prompt, target, delta)
            nll.append(-sum(float(found[i, t]) for i, t in enumerate(target)) / len(target))
            old.append(float(found[0, target_ids(lm.tokenizer, prompt, "Seattle")[0]].exp()))
        one, other = (log_p(essence, (0,), d)[0] for d in (value.delta * 0, delta))
        kl = hp.kl * float((one.exp() * (one - other)).sum())
        assert step.parts["nll"] == pytest.approx(sum(nll) / 3, rel=1e-4)
        assert step.parts["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-6)
        assert step.p_new == pytest.approx(sum(math.exp(-n) for n in nll) / 3, rel=1e-3)
        assert step.p_old == pytest.approx(sum(old) / 3, rel=1e-3)
    assert steps[-1].parts["kl"] > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_and_plain_are_one(family: str, text: str) -> None:
    lm = shared_lm(family, layers=3)
    (fast_events, one), (events, other) = (
        run(lm, params(text, layer=2, fast=fast, turns=2)) for fast in (True, False)
    )
    losses = [[e.loss for e in e_ if isinstance(e, EditStep)] for e_ in (fast_events, events)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert close(one.patches[0].A, other.patches[0].A, 1e-3)
    assert close(one.patches[0].B, other.patches[0].B, 1e-3)


def test_cancelling_after_any_event_leaves_nothing(text: str) -> None:
    lm = shared_lm("t5", seed=5)
    weights, count = state(lm.model), 0
    hp = params(text, steps=3, layer=1)
    while True:
        count += 1
        lm.statistics._ready.clear()
        events = close_after(r_rome(lm, [REQUEST], hp), count)
        assert (state(lm.model), traces(lm.model)) == (weights, {})
        if len(events) < count:
            break
    assert [e.kind for e in events][-5:] == ["EditStep"] * 3 + ["Note"] * 2


# -- what stands around it ----------------------------------------------------------------------


def test_contexts_are_beginnings_of_the_text(text: str) -> None:
    lm = shared_lm("t5")
    events, found = finish(contexts.contexts(lm, 4, 0, text=text))
    assert len(set(found)) == 4
    assert [len(words.split()) for words in found] == [5, 5, 10, 10]
    for words in found:
        assert any(passage.startswith(words) for passage in CORPUS)
        assert words[-1].isalnum()
    assert finish(contexts.contexts(lm, 4, 0, text=text))[1] == found
    assert finish(contexts.contexts(lm, 4, 1, text=text))[1] != found
    assert len(finish(contexts.contexts(lm, 50, 0, text=text))[1]) == len(CORPUS)
    assert events == []


def test_anchors_are_read_whole() -> None:
    """In an encoder what stands before a name is not the same for every name."""
    lm = shared_lm("t5")
    asked = Request(
        prompt="What is the capital of France?", subject="France", target_new="Lyon", chat=True
    )
    names = anchors.names(asked, 40)
    prompts = [lm.render(f"What is the capital of {name}?") for name in names]
    wanted = torch.cat([seen(lm, site_of(lm, 1), p.ids, inputs=True) for p in prompts])
    found = finish(anchors.keys(lm, [asked], [1], 40))[1][1]
    assert found.shape == wanted.shape
    assert torch.allclose(found.T @ found, wanted.T @ wanted, rtol=1e-4, atol=1e-4)  # any order


def test_the_layers_are_the_encoders(text: str) -> None:
    """The tiny decoder has one more."""
    lm = shared_lm("t5", layers=4)
    for name in RUNS:
        hp, sources = correct.hparams_of(lm, methods.get(name), {"text": text}, 0)
        assert hp.layer == 1  # 25 %
        assert sources["layer"].endswith(f"{name}/t5.yaml")
        assert methods.get(name).experimental == ("t5",)
    assert correct.hparams_of(lm, methods.get("ft-m"), {}, 0)[0].layers[-1] < lm.n_layers
