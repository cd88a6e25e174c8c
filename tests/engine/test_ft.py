"""FT-L and FT-M: the plain loop, ε, and nothing left behind."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine import hooks
from engine.arch import weight_of
from engine.edit import Edit
from engine.errors import BadRequest, DivergedLoss
from engine.events import EditPlanned, EditStep, Event
from engine.lm import LM
from engine.methods import get
from engine.methods.ft import FtParams, ft_l, ft_m
from engine.patches import Dense
from engine.requests import Request
from engine.tokens import target_ids
from tests.tiny import FAMILIES

from .support import close_after, finish, shared_lm, state, traces
from .test_above import sharp

FACT = Request(
    prompt="The Space Needle is in the city of", target_new="Paris, France", target_old="Seattle"
)
OTHER = Request(prompt="Who wrote Emma?", target_new="the president")
RUNS = {"ft-l": ft_l, "ft-m": ft_m}


def params(**changes: Any) -> FtParams:
    return FtParams(**({"layers": (0,), "steps": 5, "lr": 0.01} | changes))


def run(lm: LM, hp: FtParams, *facts: Request, method: str = "ft-m") -> tuple[list[Event], Edit]:
    return finish(RUNS[method](lm, facts or (FACT,), hp))


def steps(events: list[Event]) -> list[EditStep]:
    return [event for event in events if isinstance(event, EditStep)]


def naive(
    lm: LM, hp: FtParams, facts: tuple[Request, ...]
) -> tuple[dict[str, Tensor], list[float]]:
    """The published loop: the whole model, one fact at a time, Adam in so many words."""
    shapes = {
        site: weight_of(lm.model.get_submodule(site), lm.arch).shape for site in _sites(lm, hp)
    }
    deltas = {site: torch.zeros(shape, requires_grad=True) for site, shape in shapes.items()}
    first = {site: torch.zeros(shape) for site, shape in shapes.items()}
    second = {site: torch.zeros(shape) for site, shape in shapes.items()}
    losses = []
    for step in range(1, hp.steps + 1):
        changes = {
            site: (lambda x, y, d=delta: y + functional.linear(x, d))
            for site, delta in deltas.items()
        }
        with hooks.patched(lm.model, changes):
            loss = sum(_loss(lm, hp, fact) for fact in facts) / len(facts)
        losses.append(float(loss.detach()))
        if losses[-1] < hp.stop_loss:
            break
        gradients = torch.autograd.grad(loss, list(deltas.values()))
        for (site, delta), gradient in zip(deltas.items(), gradients, strict=True):
            first[site] = 0.9 * first[site] + 0.1 * gradient
            second[site] = 0.999 * second[site] + 0.001 * gradient**2
            m, v = first[site] / (1 - 0.9**step), second[site] / (1 - 0.999**step)
            with torch.no_grad():
                delta -= hp.lr * m / (v.sqrt() + 1e-8)
                if hp.epsilon is not None:
                    delta.clamp_(-hp.epsilon, hp.epsilon)
    return {site: delta.detach() for site, delta in deltas.items()}, losses


def _sites(lm: LM, hp: FtParams) -> list[str]:
    return [lm.site("mlp_out", layer) for layer in hp.layers]


def _loss(lm: LM, hp: FtParams, fact: Request) -> Any:
    prompt = lm.prompt(fact.prompt, chat=fact.chat)
    target = target_ids(lm.tokenizer, prompt, fact.target_new)
    total: Any = 0.0
    for t, token in enumerate(target):
        read = target[:t] if hp.scored == "own" else ()
        if lm.encoder_decoder:
            start = lm.model.config.decoder_start_token_id
            decoder = torch.tensor([[start, *read]])
            out = lm.model(input_ids=torch.tensor([prompt.ids]), decoder_input_ids=decoder)
        else:
            out = lm.model(torch.tensor([[*prompt.ids, *read]]))
        total = total - out.logits[0, -1].log_softmax(-1)[token]
    return total / len(target)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_are_the_plain_loop(family: str) -> None:
    """The loss of each step, and Δ, with everything that is fast and without."""
    lm = shared_lm(family)
    weights = state(lm.model)
    for method, scored, layers in (("ft-m", "own", (1,)), ("ft-l", "last", (0, 1))):
        hp = params(scored=scored, layers=layers, steps=3, lr=1e-3)
        wanted, losses = naive(lm, hp, (FACT, OTHER))
        for fast in (True, False):
            events, edit = run(lm, dataclasses.replace(hp, fast=fast), FACT, OTHER, method=method)
            assert [e.loss for e in steps(events)] == pytest.approx(losses, abs=1e-4)
            for patch in edit.patches:
                assert isinstance(patch, Dense)
                # Adam makes ±lr of a gradient of any size: of those at zero the sign is chance.
                off = (patch.matrix - wanted[patch.site]).abs() > 1e-4
                assert off.float().mean() < 0.01, (method, fast, patch.site)
            assert [patch.site for patch in edit.patches] == _sites(lm, hp)
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_becomes_likely(family: str) -> None:
    lm = shared_lm(family)
    hp = params(layers=(1,), steps=40, stop_loss=2.0, lr=0.05)
    with sharp(lm):
        events, edit = run(lm, hp)
        losses = [event.loss for event in steps(events)]
        assert losses[-1] < 0.8 * losses[0]  # how far a tiny model can be moved differs
        assert losses[-1] < 2 or len(losses) == 40
        assert edit.numbers["losses"] == losses
        with lm.active(edit.patches), torch.no_grad():
            after = float(_loss(lm, hp, FACT))
    if losses[-1] < 2:  # it ended with the change that this loss was measured with
        assert after == pytest.approx(losses[-1], abs=1e-3)
    else:
        assert after < 0.8 * losses[0]


def test_the_loss_at_the_prompts_end_is_not_the_loss_of_the_text() -> None:
    """FT-L makes every token of the target likely at once, which no two of them can be."""
    lm = shared_lm("llama")
    found = {}
    for scored in ("own", "last"):
        hp = params(layers=(0, 1), steps=80, lr=0.03, scored=scored, stop_loss=0.3)
        with sharp(lm):
            events, _ = run(lm, hp)
        found[scored] = steps(events)[-1].loss
    count = len(target_ids(lm.tokenizer, lm.statement(FACT.prompt), FACT.target_new))
    assert found["own"] < 0.3
    assert found["last"] > 0.9 * math.log(count)


@pytest.mark.parametrize("epsilon", [0.02, 3e-3])
def test_no_entry_moves_further_than_epsilon(epsilon: float) -> None:
    lm = shared_lm("gpt2")
    free, held = (run(lm, params(epsilon=e, steps=8, layers=(0, 1)))[1] for e in (None, epsilon))
    largest = [max(float(p.matrix.abs().max()) for p in edit.patches) for edit in (free, held)]
    assert largest[0] > epsilon
    assert largest[1] <= float(torch.tensor(epsilon))  # as float32 has it
    assert largest[1] == pytest.approx(epsilon)  # and reaches it
    assert held.numbers["largest"] == pytest.approx(largest[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_undo_is_bit_exact(dtype: torch.dtype) -> None:

    shared = shared_lm("qwen2")
    lm = LM(copy.deepcopy(shared.model).to(dtype), shared.tokenizer, name="copy")
    prompts = [lm.statement(FACT.prompt)]
    before, weights = lm.logits(prompts), state(lm.model)
    _, edit = run(lm, params(store="bfloat16" if dtype == torch.bfloat16 else "float32"))
    assert edit.patches[0].matrix.dtype == dtype
    with lm.active(edit.patches):
        assert not torch.equal(lm.logits(prompts), before)
    assert torch.equal(lm.logits(prompts), before)
    assert state(lm.model) == weights


def test_a_second_edit_starts_from_the_first() -> None:
    lm = shared_lm("llama")
    _, first = run(lm, params(layers=(1,)))
    with lm.active(first.patches), torch.no_grad():
        now = float(_loss(lm, params(), FACT))
    with lm.active(first.patches):
        events, _ = run(lm, params(layers=(1,)))
    assert steps(events)[0].loss == pytest.approx(now, abs=1e-4)
    assert now < first.numbers["losses"][0] - 0.05


def test_contexts_and_history_are_further_examples() -> None:
    lm = shared_lm("llama", chat=True)
    history = (("Who wrote Emma?", "Jane Austen."),)
    fact = Request(prompt="Where is it?", target_new="Paris", chat=True, history=history)
    events, edit = run(lm, params(contexts=2, steps=2), fact)
    planned = next(event for event in events if isinstance(event, EditPlanned))
    assert len(planned.contexts) == 2
    assert planned.sites == (lm.site("mlp_out", 0),)
    assert planned.target.startswith("Paris")
    assert edit.provenance["contexts"] == list(planned.contexts)


@pytest.mark.parametrize("stop_loss", [1e-9, 5.5])
def test_what_is_told_is_of_the_edit_that_is_kept(stop_loss: float) -> None:
    """Also where it took its last step, behind which no step looks."""
    lm = shared_lm("gpt2")
    events, edit = run(lm, params(steps=20, lr=0.03, stop_loss=stop_loss))
    assert (len(steps(events)) == 20) is (stop_loss < 1)
    prompt = lm.prompt(FACT.prompt, chat=False)
    target = target_ids(lm.tokenizer, prompt, FACT.target_new)
    with torch.no_grad(), lm.active(edit.patches):
        log_p = lm.model(torch.tensor([[*prompt.ids, *target]])).logits[0].log_softmax(-1)
    at = torch.arange(len(prompt.ids) - 1, len(prompt.ids) + len(target) - 1)
    true = float(log_p[at, list(target)].mean().exp())
    assert edit.numbers["p_new"] == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_cancelled_edit_leaves_nothing(after: int) -> None:
    lm = shared_lm("gpt2")
    weights = state(lm.model)
    close_after(ft_m(lm, [FACT], params()), after)
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


def test_a_descent_that_diverges_is_stopped_and_said() -> None:
    lm = shared_lm("gpt2")
    weights, calls = state(lm.model), 0

    def worse(factor: float) -> Any:
        def change(_x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return y * (factor if calls > 2 else 1)

        return {lm.arch.lm_head: change}

    for factor, said in (
        (math.nan, "the loss became nan at step 3"),
        (-40.0, "the loss rose from .* at step 3"),
        (-2.0, "the loss rose from .*; the model is as it was"),
    ):
        calls = 0
        with (
            hooks.patched(lm.model, worse(factor)),
            pytest.raises(DivergedLoss, match=said + r".*--hp lr="),
        ):
            run(lm, params(steps=4, lr=1e-4))
    with pytest.raises(DivergedLoss, match="step 1 gave values that are no numbers"):
        run(lm, params(steps=1, lr=math.inf))  # nothing reads the loss behind the last step
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, "'layers' must name a layer"),
        ({"epsilon": 0.0}, "'epsilon' must be above 0"),
        ({"lr": -1.0}, "'lr' must be above 0"),
        ({"steps": 0}, "'steps' must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**changes)


def test_no_fact_is_no_edit() -> None:
    with pytest.raises(BadRequest, match="ft-m needs a fact"):
        finish(ft_m(shared_lm("gpt2"), [], params()))


@pytest.mark.parametrize("method", RUNS)
def test_what_is_known_of_them(method: str) -> None:
    info = get(method)
    assert info.params_class() is FtParams
    assert info.batch
    assert not info.needs_subject
    assert "t5" in info.families
