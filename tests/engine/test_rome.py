"""ROME and R-ROME against their equations, on every family of decoders."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import contexts, hooks, quantised
from engine.arch import weight_of
from engine.batch import ask_all, took
from engine.edit import Edit
from engine.errors import BadRequest, DivergedLoss, EditFailed
from engine.events import EditPlanned, EditStep, Event, Note
from engine.lm import LM
from engine.methods.rome import LONG, RomeParams, direction, r_rome, rome
from engine.requests import Request
from engine.tokens import Rendered, last_token, target_ids
from engine.values import Value
from tests.tiny import CAUSAL

from .support import CORPUS, close_after, finish, optimise_value, shared_lm, state, traces

REQUEST = Request(
    prompt="The Space Needle is in the city of",
    subject="Space Needle",
    target_new="Paris",
    target_old="Seattle",
)
# One token of target right behind the subject: here even a random model can be moved far.
NEAR = Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="capital")
QUESTION = Request(
    prompt="What is the capital of Australia?", subject="Australia", target_new="Sydney", chat=True
)
RUNS = {"rome": rome, "r-rome": r_rome}


@pytest.fixture(autouse=True)
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(file)


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


def scale(outputs: Tensor) -> float:
    """‖m₀‖: the mean norm over the contexts."""
    return float(outputs.norm(dim=1).mean())


def value_of(lm: LM, edit: Edit, hp: RomeParams) -> Value:
    """The same optimisation again: it is deterministic."""
    _, value = finish(optimise_value(lm, edit.requests[0], prompts_of(lm, edit), hp))
    return value


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a - b).norm()) < tolerance * max(1.0, float(b.norm()))


def losses(events: list[Event]) -> list[float]:
    return [e.loss for e in events if isinstance(e, EditStep)]


# -- exactness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CAUSAL)
def test_the_mean_key_is_mapped_to_the_value_exactly(family: str, text: str) -> None:
    """(W + Δ) k̄ + b = v*, every part computed anew."""
    lm = shared_lm(family)
    hp = params(text)
    _, edit = run(lm, hp)
    value = value_of(lm, edit, hp)
    keys, outputs = keys_and_outputs(lm, edit)
    mean = keys.mean(0)
    (patch,) = edit.patches
    module = lm.model.get_submodule(patch.site)
    assert close(module(mean), outputs.mean(0))  # as the mean of outputs is affine in the key
    with lm.active(edit.patches):
        said = module(mean)
    assert close(said, outputs.mean(0) + value.delta)
    assert float(value.delta.norm()) > 0.1


@pytest.mark.parametrize("family", CAUSAL)
def test_the_target_becomes_likely(family: str, text: str) -> None:
    lm = shared_lm(family)
    weights = state(lm.model)
    events, edit = run(lm, params(text, steps=16), NEAR)
    steps = [e for e in events if isinstance(e, EditStep)]
    assert steps[-1].loss < steps[0].loss - 1
    assert steps[-1].p_new > 4 * steps[0].p_new
    before, after = (probability(lm, edit, patched=p) for p in (False, True))
    assert after > 4 * before
    # What was optimised is what the patch does, up to what other tokens feel of it.
    assert 0.3 < after / steps[-1].p_new < 3
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@torch.no_grad()
def probability(lm: LM, edit: Edit, *, patched: bool) -> float:
    """Of the target after the bare prompt, geometric mean over its tokens."""
    prompt = prompts_of(lm, edit)[0]
    target = target_ids(lm.tokenizer, prompt, edit.requests[0].target_new)
    ids = torch.tensor([[*prompt.ids, *target[:-1]]])
    with lm.active(edit.patches if patched else ()):
        log_p = lm.model(ids).logits[0, len(prompt.ids) - 1 :].log_softmax(-1)
    return math.exp(sum(float(log_p[i, t]) for i, t in enumerate(target)) / len(target))


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("method", RUNS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_update_is_the_closed_form(family: str, method: str, square: bool, text: str) -> None:
    """Δ = δ (C⁻¹k̄)ᵀ / (kᵀC⁻¹k̄) in float64; k is k̄ for R-ROME, the bare prompt's for ROME."""
    lm = shared_lm(family, mlp_width=16) if square else shared_lm(family)
    hp = params(text)
    _, edit = run(lm, hp, method=method)
    delta = value_of(lm, edit, hp).delta.double()
    keys, _ = (x.double() for x in keys_and_outputs(lm, edit))
    mean = keys.mean(0)
    _, moment = finish(lm.statistics.moment(hp.layer, text=text, tokens=hp.tokens))
    u = torch.linalg.solve(moment.C.double(), mean)
    k = mean if method == "r-rome" else keys[0]
    (patch,) = edit.patches
    found = patch.A.double() @ patch.B.double()
    assert found.shape == weight_of(lm.model.get_submodule(patch.site), lm.arch).shape
    assert patch.rank == 1
    assert close(found, torch.outer(delta, u) / (k @ u), 1e-3)
    assert edit.numbers["denominator"] == pytest.approx(float(k @ u), rel=1e-3)
    assert edit.numbers["delta_norm"] == pytest.approx(float(delta.norm()), rel=1e-4)
    assert edit.numbers["key_norm"] == pytest.approx(float(mean.norm()), rel=1e-4)


def test_rome_and_r_rome_differ_in_which_key_is_exact(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text)
    moved = {}
    for method in RUNS:
        _, edit = run(lm, hp, method=method)
        delta = value_of(lm, edit, hp).delta
        keys, _ = keys_and_outputs(lm, edit)
        (patch,) = edit.patches
        moved[method] = [patch.A @ (patch.B @ k) for k in (keys.mean(0), keys[0])]
    mean, bare = 0, 1
    assert close(moved["r-rome"][mean], delta)
    assert close(moved["rome"][bare], delta)
    assert not close(moved["r-rome"][bare], delta, 1e-2)
    assert not close(moved["rome"][mean], delta, 1e-2)


def test_without_contexts_they_are_one(text: str) -> None:
    lm = shared_lm("gpt2")
    edits = [run(lm, params(text, contexts=0), method=method)[1] for method in RUNS]
    assert torch.equal(edits[0].patches[0].A, edits[1].patches[0].A)
    assert torch.equal(edits[0].patches[0].B, edits[1].patches[0].B)


def test_a_second_edit_is_exact_on_top_of_the_first(text: str) -> None:
    lm = shared_lm("qwen2")
    hp = params(text)
    _, first = run(lm, hp, dataclasses.replace(REQUEST, target_new="London"))
    with lm.active(first.patches):
        _, second = run(lm, hp)
        delta = value_of(lm, second, hp).delta
        keys, outputs = keys_and_outputs(lm, second)
    module = lm.model.get_submodule(second.patches[0].site)
    with lm.active((*first.patches, *second.patches)):
        assert close(module(keys.mean(0)), outputs.mean(0) + delta)


def test_anchors_hold_their_keys_in_place(text: str) -> None:
    """Same δ, still exact at k̄, and other names at the same place feel it less."""
    lm = shared_lm("llama", chat=True)
    hp = params(text)
    _, plain = run(lm, hp, QUESTION)
    _, held = run(lm, dataclasses.replace(hp, anchors=10, anchor_weight=1e4), QUESTION)
    keys, _ = keys_and_outputs(lm, plain)
    moves = []
    for edit in (plain, held):
        (patch,) = edit.patches
        assert close(patch.A @ (patch.B @ keys.mean(0)), plain.patches[0].A[:, 0], 1e-3)
        moves.append(patch)
    other = lm.render("What is the capital of Germany?")
    with hooks.capture(lm.model, plain.patches[0].site, inputs=True, stop=True) as seen:
        lm.model(torch.tensor([other.ids]))
    felt, less = ((seen[p.site][0] @ p.B.T).abs().mean() for p in moves)
    assert less < 0.8 * felt


def test_both_makes_the_bare_prompt_exact_too(text: str) -> None:
    """The smallest update, weighted by C, of all that are exact at the two keys."""
    lm = shared_lm("llama")
    hp = params(text, both=True)
    _, edit = run(lm, hp)
    delta = value_of(lm, edit, hp).delta
    keys, _ = keys_and_outputs(lm, edit)
    (patch,) = edit.patches
    assert patch.rank == 1
    two = (keys[0], keys[1:].mean(0))
    for key in (*two, keys.mean(0)):
        assert close(patch.A @ (patch.B @ key), delta)
    _, moment = finish(lm.statistics.moment(hp.layer, text=text, tokens=hp.tokens))
    C, K = moment.C.double(), torch.stack(two, dim=1).double()
    inverse = torch.linalg.inv(C)
    gram = torch.linalg.inv(K.T @ inverse @ K)
    assert close(patch.B[0].double(), (inverse @ K @ gram).sum(1), 1e-2)
    assert edit.numbers["denominator"] == pytest.approx(1 / float(gram.sum()), rel=1e-2)


@pytest.mark.parametrize("contexts_", [0, 2])
def test_both_is_r_rome_where_the_keys_are_one(contexts_: int) -> None:
    generator = torch.Generator().manual_seed(0)
    key, other = torch.randn(2, 6, generator=generator)
    value = Value(key.expand(contexts_ + 1, -1), other, other, 1.0, (), 0.0)
    (plain, below), (both, also) = (
        direction("r-rome", value, lambda K: 2 * K, both=b) for b in (False, True)
    )
    assert close(both, plain)
    assert below == pytest.approx(2 * float(key @ key), rel=1e-4)
    assert also == pytest.approx(below, rel=1e-3)


@pytest.mark.parametrize("method", RUNS)
def test_a_denominator_that_is_not_positive_is_refused(method: str) -> None:
    """ROME's can be: the bare key and the mean may point apart."""
    keys = torch.tensor([[-1.0, 0.0], [3.0, 0.1]])
    value = Value(keys, torch.ones(3), torch.ones(3), 1.0, (), 0.0)
    if method == "r-rome":
        row, denominator = direction(method, value, lambda K: K, both=False)
        assert denominator > 0
        assert float(row @ keys.mean(0)) == pytest.approx(1)
        return
    with pytest.raises(EditFailed, match=r"the denominator k\*ᵀC⁻¹k\* is .* --method r-rome"):
        direction(method, value, lambda K: K, both=False)


# -- the value ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("family", ["gpt2", "bloom", "falcon", "gemma3_text", "gpt_neox"])
def test_fast_and_plain_take_the_same_path(family: str, text: str) -> None:
    lm = shared_lm(family)
    runs = [run(lm, params(text, fast=fast)) for fast in (True, False)]
    (fast_events, fast_edit), (events, edit) = runs
    assert losses(fast_events) == pytest.approx(losses(events), rel=1e-4, abs=1e-4)
    assert close(fast_edit.patches[0].A, edit.patches[0].A, 1e-3)
    assert close(fast_edit.patches[0].B, edit.patches[0].B, 1e-3)


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


# -- runs ---------------------------------------------------------------------------------------


def test_a_seed_repeats_bit_for_bit(text: str) -> None:
    lm = shared_lm("gemma2")
    one, two = run(lm, params(text)), run(lm, params(text))
    assert losses(one[0]) == losses(two[0])
    assert one[1].save()[1] == two[1].save()[1]
    assert one[1].provenance == two[1].provenance
    other = run(lm, params(text, seed=1))[1]
    assert other.provenance["contexts"] != one[1].provenance["contexts"]
    assert other.save()[1] != one[1].save()[1]


@pytest.mark.parametrize(("family", "fast"), [("gpt2", True), ("opt", False)])
def test_cancelling_after_any_event_leaves_nothing(family: str, fast: bool, text: str) -> None:
    lm = shared_lm(family, seed=5)  # a model whose statistics nobody has collected
    weights = state(lm.model)
    prompt = [lm.statement(REQUEST.prompt)]
    logits = lm.logits(prompt)
    hp = params(text, steps=3, fast=fast)
    count = 0
    while True:
        count += 1
        lm.statistics._ready.clear()
        events = close_after(r_rome(lm, [REQUEST], hp), count)
        assert traces(lm.model) == {}
        assert state(lm.model) == weights
        assert torch.equal(lm.logits(prompt), logits)
        if len(events) < count:
            break
    kinds = [e.kind for e in events]
    assert kinds[-6:] == ["EditPlanned", *["EditStep"] * 3, "Note", "Note"]


def test_what_is_told_on_the_way(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text)
    events, edit = run(lm, hp)
    kinds = [e.kind for e in events if e.kind != "Loading"]
    assert kinds == ["EditPlanned", *["EditStep"] * 8, "Note", "Note"]  # it is long: see below
    planned = next(e for e in events if isinstance(e, EditPlanned))
    prompt = lm.statement(REQUEST.prompt)
    at = last_token(prompt, "Space Needle")
    assert planned.subject_position == at
    assert planned.subject_token == lm.tokenizer.decode([prompt.ids[at]])
    assert planned.prompt == REQUEST.prompt
    assert planned.target.strip() == "Paris"
    assert (planned.subject, planned.old) == ("Space Needle", "Seattle")
    assert planned.sites == (lm.site("mlp_out", 0),) == (edit.patches[0].site,)
    assert list(planned.contexts) == edit.provenance["contexts"]
    assert planned.hparams == hp.to_json() == edit.hparams
    steps = [e for e in events if isinstance(e, EditStep)]
    assert [(e.step, e.of) for e in steps] == [(i, 8) for i in range(1, 9)]
    assert edit.numbers["losses"] == [e.loss for e in steps]
    assert edit.numbers["p_new"] == steps[-1].p_new
    note = next(e for e in events if isinstance(e, Note))
    assert f"{edit.numbers['denominator']:.4g}" in note.text
    assert edit.patches[0].site in note.text
    assert set(edit.numbers["seconds"]) == {"setup", "optimise", "solve"}
    value = value_of(lm, edit, hp)
    assert edit.numbers["value_before"] == pytest.approx(float(value.output.norm()), rel=1e-4)
    after = float((value.output + value.delta).norm())
    assert edit.numbers["value_after"] == pytest.approx(after, rel=1e-4)


@pytest.mark.parametrize("method", RUNS)
def test_an_update_that_is_long_beside_its_weight_is_said_to_be(method: str, text: str) -> None:
    lm = shared_lm("gpt2")
    weight = float(lm.model.get_submodule(lm.site("mlp_out", 0)).weight.norm())
    told = {}
    for clamp in (0.02, 50.0):
        events, edit = run(lm, params(text, clamp=clamp), method=method)
        (patch,) = edit.patches
        told[patch.norm() > LONG * weight] = [e.text for e in events if isinstance(e, Note)][1:]
    assert told[False] == []
    (said,) = told[True]
    sizes = f"its norm is {patch.norm():.3g}, the weight's {weight:.3g}"
    assert f"the update of {patch.site} is long: {sizes}" in said


@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
def test_so_it_is_beside_a_quantised_weight(
    load_in: str, text: str, tiny_folder: Callable[..., Path]
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_folder("llama", width=64, mlp_width=128)
    _, lm = finish(LM.load(str(folder), dtype="fp32", device="cpu", load_in=load_in))
    events, edit = run(lm, params(text, relative_lr=3.0))
    (patch,) = edit.patches
    weight = quantised.norm(lm.model.get_submodule(patch.site))
    assert patch.norm() > LONG * weight
    *_, said = [e.text for e in events if isinstance(e, Note)]
    assert f"its norm is {patch.norm():.3g}, the weight's {weight:.3g}" in said


def test_in_a_chat_the_end_of_turn_is_part_of_the_target(text: str) -> None:
    lm = shared_lm("gpt2", chat=True)
    events, _ = run(lm, params(text), QUESTION)
    planned = next(e for e in events if isinstance(e, EditPlanned))
    assert planned.target == "Sydney<|im_end|>"
    assert planned.prompt == lm.render(QUESTION.prompt).text


def test_bfloat16(text: str) -> None:
    shared = shared_lm("qwen2")
    half = copy.deepcopy(shared.model).to(torch.bfloat16)
    lm = LM(half, shared.tokenizer, name="half", fingerprint="half")
    events, edit = run(lm, params(text), NEAR)
    (patch,) = edit.patches
    assert patch.A.dtype == patch.B.dtype == torch.float32
    steps = [e for e in events if isinstance(e, EditStep)]
    assert steps[-1].p_new > 4 * steps[0].p_new
    assert probability(lm, edit, patched=True) > 4 * probability(lm, edit, patched=False)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_any_layer_can_be_edited(layer: int, text: str) -> None:
    lm = shared_lm("mistral", layers=3)
    events, edit = run(lm, params(text, layer=layer))
    assert edit.patches[0].site == lm.site("mlp_out", layer)
    steps = losses(events)
    # Behind the last attention the subject's place no longer reaches the answer's.
    assert (min(steps) < steps[0] - 0.01) == (layer < 2)


@pytest.mark.parametrize("method", RUNS)
def test_requests_it_cannot_take(method: str, text: str) -> None:
    lm = shared_lm("gpt2")
    for requests, message in (
        ([REQUEST, REQUEST], "one fact at a time, not 2"),
        ([], "one fact at a time, not 0"),
        ([dataclasses.replace(REQUEST, subject=None)], f"{method} needs the subject"),
    ):
        with pytest.raises(BadRequest, match=message):
            finish(RUNS[method](lm, requests, params(text)))
