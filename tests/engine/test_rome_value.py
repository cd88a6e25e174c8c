"""The value that ROME and R-ROME seek: its loss, its steps, its clamp, and when it is done."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from engine import hooks
from engine.batch import ask_all, took
from engine.edit import Edit
from engine.errors import DivergedLoss
from engine.events import EditStep
from engine.lm import LM
from engine.methods.rome import RomeParams
from engine.requests import Request
from engine.tokens import last_token, target_ids

from .rome_parts import REQUEST, keys_and_outputs, losses, params, prompts_of, run, value_of
from .support import QUESTION, finish, shared_lm, state, traces


def scale(outputs: Tensor) -> float:
    """‖m₀‖: the mean norm over the contexts."""
    return float(outputs.norm(dim=1).mean())


def naive_parts(lm: LM, edit: Edit, delta: Tensor, hp: RomeParams) -> dict[str, float]:
    """The loss of the published method at δ, one prompt at a time, without any batching."""
    (request,), site = edit.requests, edit.patches[0].site
    assert request.subject is not None

    def log_p(ids: tuple[int, ...], at: int, added: Tensor) -> Tensor:
        def add(_x: Tensor, y: Tensor) -> Tensor:
            place = torch.zeros(len(ids), 1)
            place[at] = 1
            return y + (place * added).view(y.shape)

        with hooks.patched(lm.model, {site: add}):
            found: Tensor = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return found

    nll, p_new, p_old = [], [], []
    for prompt in prompts_of(lm, edit):
        target = target_ids(lm.tokenizer, prompt, request.target_new)
        at = last_token(prompt, request.subject)
        found = log_p((*prompt.ids, *target), at, delta)[len(prompt.ids) - 1 :]
        nll.append(-sum(float(found[i, t]) for i, t in enumerate(target)) / len(target))
        p_new.append(math.exp(-nll[-1]))
        if request.target_old:
            old = target_ids(lm.tokenizer, prompt, request.target_old)[0]
            p_old.append(math.exp(float(found[0, old])))
    essence = lm.prompt(f"{request.subject} is a", chat=request.chat)
    at = last_token(essence, request.subject)
    before, after = (log_p(essence.ids, at, d)[at] for d in (torch.zeros_like(delta), delta))
    kl = float((before.exp() * (before - after)).sum())
    _, outputs = keys_and_outputs(lm, edit)
    decay = hp.decay * float(delta.norm()) / scale(outputs) ** 2
    n = len(nll)
    return {
        "nll": sum(nll) / n,
        "kl": hp.kl * kl,
        "decay": decay,
        "p_new": sum(p_new) / n,
        "p_old": sum(p_old) / n if p_old else math.nan,
    }


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "opt"])
def test_the_loss_is_the_published_one(family: str, fast: bool, text: str) -> None:
    lm = shared_lm(family, chat=True)
    history = (("Who wrote Emma?", "Jane Austen."),)
    question = dataclasses.replace(QUESTION, history=history)
    for request in (REQUEST, question):
        hp = params(text, fast=fast, kl=0.5, decay=0.05)
        events, edit = run(lm, hp, request)
        steps = [e for e in events if isinstance(e, EditStep)]
        value = value_of(lm, edit, hp)
        for step, delta in ((steps[0], value.delta * 0), (steps[-1], value.delta)):
            wanted = naive_parts(lm, edit, delta, hp)
            found = step.parts | {"p_new": step.p_new, "p_old": step.p_old}
            assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4, nan_ok=True)
            assert step.loss == pytest.approx(sum(step.parts.values()), rel=1e-5)
        assert steps[0].parts["kl"] == pytest.approx(0, abs=1e-6)
        assert steps[0].parts["decay"] == steps[0].delta_norm == 0
        assert steps[-1].parts["kl"] > 1e-3
        assert steps[-1].delta_norm == pytest.approx(float(value.delta.norm()), rel=1e-4)


def test_the_step_is_scaled_to_the_model_and_the_value_is_clamped(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text, steps=2, clamp=100.0, relative_lr=0.5)
    events, edit = run(lm, hp)
    _, outputs = keys_and_outputs(lm, edit)
    norm0 = scale(outputs)
    # Adam's first step moves every coordinate by the rate, so ‖δ‖ = lr √d = relative_lr ‖m₀‖.
    assert [e.delta_norm for e in events if isinstance(e, EditStep)] == pytest.approx(
        [0, 0.5 * norm0], rel=1e-3
    )
    events, _ = run(lm, dataclasses.replace(hp, lr=0.01))
    last = [e for e in events if isinstance(e, EditStep)][-1]
    assert last.delta_norm == pytest.approx(0.01 * math.sqrt(lm.width), rel=1e-3)
    events, edit = run(lm, params(text, steps=6, clamp=0.75))
    norms = [e.delta_norm for e in events if isinstance(e, EditStep)]
    assert max(norms) == pytest.approx(0.75 * norm0, rel=1e-3)
    assert edit.numbers["delta_norm"] <= 0.75 * norm0 * 1.001


def test_the_clamp_grows_for_a_fact_that_is_not_said(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text, steps=9, clamp=0.5, grow=3)
    events, edit = run(lm, hp)
    norm0 = scale(keys_and_outputs(lm, edit)[1])
    norms = [e.delta_norm / norm0 for e in events if isinstance(e, EditStep)]
    # The norm told at a step is what the step before it left.
    assert norms == pytest.approx(
        [0.0, *([0.5] * 3), *(0.5 * step / 3 for step in range(4, 9))], rel=1e-3
    )
    told = [(e.step, e.of) for e in events if isinstance(e, EditStep)]
    assert told == [(step, 3 if step <= 3 else 9) for step in range(1, 10)]
    fixed = dataclasses.replace(hp, grow=0)
    same, _ = run(lm, dataclasses.replace(fixed, steps=4))
    assert losses(events)[:4] == losses(same), "until then it is the run without growth"
    assert losses(run(lm, fixed)[0])[-1] > losses(events)[-1]


def test_a_fact_that_is_said_when_the_clamp_would_grow_is_done(text: str) -> None:
    lm = shared_lm("llama")
    fact = Request(prompt="The capital of Australia", subject="Australia", target_new="capital")
    hp = params(text, steps=20, grow=12, stop_probability=0.9)
    _, edit = run(lm, hp, fact)
    with lm.active(edit.patches):
        _, (answer,) = finish(ask_all(lm, [fact]))
    assert took(fact, answer.answer)
    assert answer.p_new < 0.9  # not sure, but said
    _, same = run(lm, dataclasses.replace(hp, steps=12, grow=0), fact)
    assert edit.numbers["losses"] == same.numbers["losses"]
    assert torch.equal(edit.patches[0].A, same.patches[0].A)


def test_the_value_can_be_taken_further_within_the_clamp(text: str) -> None:
    lm = shared_lm("llama")
    usual = run(lm, params(text))[1].numbers["delta_norm"]
    longer = run(lm, params(text, extend=1.5))[1].numbers["delta_norm"]
    assert longer == pytest.approx(1.5 * usual, rel=1e-4)
    _, edit = run(lm, params(text, extend=1e6, clamp=2.0))
    _, outputs = keys_and_outputs(lm, edit)
    assert edit.numbers["delta_norm"] == pytest.approx(2 * scale(outputs), rel=1e-3)


def test_it_stops_early_when_told_to(text: str) -> None:
    lm = shared_lm("llama")
    whole = losses(run(lm, params(text))[0])
    assert len(whole) == 8
    middle = (whole[3] + whole[4]) / 2
    short = losses(run(lm, params(text, stop_loss=middle))[0])
    assert short == whole[:5]
    events, edit = run(lm, params(text, stop_probability=1e-9))
    assert len(losses(events)) == 1
    assert float(edit.patches[0].A.norm()) == 0
    assert edit.numbers["losses"] == losses(events)


def test_a_loss_that_is_no_number_stops_the_edit(text: str) -> None:
    lm = shared_lm("gpt2")
    weights = state(lm.model)
    with pytest.raises(DivergedLoss, match="the loss became nan at step 2"):
        run(lm, params(text, lr=1e30, clamp=1e38))
    assert (state(lm.model), traces(lm.model)) == (weights, {})
