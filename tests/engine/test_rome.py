"""Runs of ROME and R-ROME: what they take, tell, repeat, and leave behind."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine import quantised
from engine.errors import BadRequest
from engine.events import EditPlanned, EditStep, Note
from engine.lm import LM
from engine.methods.rome import LONG, r_rome
from engine.tokens import last_token

from .rome_parts import REQUEST, RUNS, close, losses, params, probability, run, value_of
from .support import NEAR, QUESTION, close_after, finish, shared_lm, state, traces


@pytest.mark.parametrize("family", ["gpt2", "bloom", "falcon", "gemma3_text", "gpt_neox"])
def test_fast_and_plain_take_the_same_path(family: str, text: str) -> None:
    lm = shared_lm(family)
    runs = [run(lm, params(text, fast=fast)) for fast in (True, False)]
    (fast_events, fast_edit), (events, edit) = runs
    assert losses(fast_events) == pytest.approx(losses(events), rel=1e-4, abs=1e-4)
    assert close(fast_edit.patches[0].A, edit.patches[0].A, 1e-3)
    assert close(fast_edit.patches[0].B, edit.patches[0].B, 1e-3)


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
