"""Correcting: measured, edited, measured again, put into words, and undone exactly."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from engine import alarms
from engine import correct as module
from engine.correct import correct
from engine.edit import Edit
from engine.events import EditApplied, EditPlanned, EditStep, Loading, Metric, Note, from_json
from engine.ledger import Ledger
from engine.lm import LM
from engine.outcome import Answered
from engine.tokens import target_ids

from .correcting import logits, run
from .support import NEAR, QUESTION, finish, shared_lm, state, traces

pytestmark = pytest.mark.usefixtures("short_answers")


# -- the way through ----------------------------------------------------------------------------


def test_an_answer_is_corrected_measured_and_taken_back(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    ledger = Ledger()
    plain, weights = logits(lm, ledger), state(lm.model)
    answer = lm.reply(lm.statement(NEAR.prompt), 12).text
    _, outcome = run(lm, hp, ledger=ledger, edit_id="0123456789abcdef")

    assert outcome.success
    assert outcome.before.answer == answer
    assert outcome.after.answer.startswith("capital")
    assert outcome.after.p_new > 4 * outcome.before.p_new
    assert outcome.after.p_old < outcome.before.p_old
    assert outcome.verdict.startswith("Changed")
    assert ledger.edits == (outcome.edit,)
    assert outcome.edit.id == "0123456789abcdef"
    assert outcome.edit.requests[0].target_old == answer  # what it said becomes the old answer

    with lm.active(ledger.patches()):
        assert lm.reply(lm.statement(NEAR.prompt), 12).text == outcome.after.answer
    assert not torch.equal(logits(lm, ledger), plain)
    assert ledger.undo() is outcome.edit
    assert torch.equal(logits(lm, ledger), plain)
    assert (state(lm.model), traces(lm.model)) == (weights, {})


def test_what_is_said_on_the_way(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    events, outcome = run(lm, hp)
    kinds = [e.kind for e in events]
    order = sorted(set(kinds) - {"Loading"}, key=kinds.index)
    assert order == ["EditPlanned", "EditStep", "Note", "Metric", "EditApplied"]
    assert kinds[-1] == "EditApplied"
    planned = next(e for e in events if isinstance(e, EditPlanned))
    assert planned.edit == outcome.edit.id
    metrics = [e for e in events if isinstance(e, Metric)]
    assert [m.name for m in metrics] == ["said", "rephrased", "neighbours", "fluency", "weight"]
    assert outcome.metrics == tuple(metrics)
    said, weight = metrics[0], metrics[-1]
    assert (said.before, said.after, said.n) == (0.0, 1.0, 1)
    assert said.detail["answer_before"] == outcome.before.answer
    assert said.detail["answer_after"] == outcome.after.answer
    assert said.detail["target"] == "capital"
    applied = events[-1]
    assert isinstance(applied, EditApplied)
    assert applied.edit == outcome.edit.id
    assert (applied.success, applied.verdict) == (True, outcome.verdict)
    assert (applied.answer_before, applied.answer_after) == (
        outcome.before.answer,
        outcome.after.answer,
    )
    assert applied.numbers["denominator"] == outcome.edit.numbers["denominator"]
    assert applied.numbers["p_new_after"] == outcome.after.p_new

    (layer,) = outcome.layers
    (patch,) = outcome.edit.patches
    norm = float(lm.model.get_submodule(patch.site).weight.norm())
    assert layer == {
        "site": patch.site,
        "rank": 1,
        "norm_ratio": pytest.approx(float((patch.A @ patch.B).norm()) / norm, rel=1e-4),
    }
    assert weight.after == layer["norm_ratio"]
    assert weight.detail == {patch.site: layer["norm_ratio"]}
    steps = [e for e in events if isinstance(e, EditStep)]
    assert outcome.losses == tuple(e.loss for e in steps)
    assert outcome.steps == len(steps)
    assert {"total", "edit", "probes", "setup", "optimise", "solve"} <= set(outcome.seconds)
    assert outcome.seconds["total"] >= outcome.seconds["edit"] + outcome.seconds["probes"] - 1e-3
    assert {"llm-edit", "torch", "transformers", "python"} <= set(outcome.versions)


def test_what_is_kept_of_it_can_be_written_down(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    events, outcome = run(lm, hp, seed=3)
    for event in events:
        back = from_json(json.loads(json.dumps(event.to_json(), allow_nan=False)))
        assert json.dumps(back.to_json()) == json.dumps(event.to_json())
    described, tensors = outcome.edit.save()
    edit = Edit.load(json.loads(json.dumps(described)), tensors)
    with lm.active(outcome.edit.patches):
        wanted = lm.logits([lm.statement(NEAR.prompt)])
    with lm.active(edit.patches):
        assert torch.equal(lm.logits([lm.statement(NEAR.prompt)]), wanted)
    kept = edit.provenance
    assert (kept["fingerprint"], kept["model"]) == (lm.fingerprint, lm.name)
    assert (kept["dtype"], kept["device"], kept["seed"]) == ("float32", "cpu", 3)
    assert kept["sources"]["steps"] == "command line"
    assert kept["sources"]["stop_loss"].endswith("r-rome/default.yaml")
    assert kept["versions"] == outcome.versions
    assert edit.hparams["steps"] == 16
    assert edit.hparams["seed"] == 3


def test_probabilities_are_those_of_the_answers(hp: dict[str, str]) -> None:
    """The geometric mean over an answer's tokens, its ending included."""
    lm = shared_lm("llama", chat=True)
    request = dataclasses.replace(QUESTION, target_old="Canberra")
    _, outcome = run(lm, hp | {"steps": "2"}, request, probes=False)
    prompt = lm.render(request.prompt)
    for patches, answered in (((), outcome.before), (outcome.edit.patches, outcome.after)):
        for target, found in (("Sydney", answered.p_new), ("Canberra", answered.p_old)):
            ids = target_ids(lm.tokenizer, prompt, target)
            with lm.active(patches), torch.no_grad():
                out = lm.model(torch.tensor([[*prompt.ids, *ids]])).logits[0].log_softmax(-1)
            logs = [float(out[len(prompt.ids) - 1 + i, t]) for i, t in enumerate(ids)]
            assert found == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-3)
    assert outcome.edit.requests[0].target_old == "Canberra"  # as it was given


def test_probes_can_be_left_out(hp: dict[str, str]) -> None:
    events, outcome = run(shared_lm("gemma"), hp, probes=False)
    assert [m.name for m in outcome.metrics] == ["said", "weight"]
    stages = [e for e in events if isinstance(e, Loading) and e.stage == "probes"]
    assert [e.total for e in stages] == [0]  # that it has begun, and no more
    changed = f"Changed: the model now says {outcome.after.answer!r}."
    grown = alarms.warnings(shared_lm("gemma"), outcome.edit.patches, math.nan)
    assert outcome.verdict == " ".join([changed, *grown])


def test_a_second_correction_stands_on_the_first(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    ledger = Ledger()
    run(lm, hp, ledger=ledger, probes=False)
    first = logits(lm, ledger)
    other = dataclasses.replace(NEAR, prompt="A city of the Space Needle", target_new="the")
    prompt = lm.statement(other.prompt)
    _, second = run(lm, hp, other, ledger, probes=False)
    assert second.before.answer.startswith("capital")
    assert not lm.reply(prompt, 12).text.startswith("capital")
    assert second.edit.requests[0].target_old == second.before.answer
    assert len(ledger.acting) == 2
    for patches, same in ((ledger.patches(), True), (second.edit.patches, False)):
        with lm.active(patches):  # it was judged with both in place
            p_new = module._probability(lm, prompt, "the")
        assert (p_new == pytest.approx(second.after.p_new, rel=1e-4)) == same
    ledger.undo()
    assert torch.equal(logits(lm, ledger), first)


def test_a_second_correction_of_a_question_supersedes_the_first(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    ledger, alone = Ledger(), Ledger()
    _, one = run(lm, hp, ledger=ledger, probes=False)
    first = logits(lm, ledger)
    other = dataclasses.replace(NEAR, target_new="the")
    events, two = run(lm, hp, other, ledger, probes=False)
    assert two.before.answer.startswith("capital"), "it was asked with the first one acting"
    assert two.edit.supersedes == (one.edit.id,)
    assert (ledger.edits, ledger.acting) == ((one.edit, two.edit), (two.edit,))
    assert any(f"supersedes edit {one.edit.id}" in e.text for e in events if isinstance(e, Note))
    run(lm, hp, dataclasses.replace(other, target_old=two.before.answer), alone, probes=False)
    assert torch.equal(logits(lm, ledger), logits(lm, alone)), "computed without the first"
    with lm.active(ledger.patches()):
        p_new = module._probability(lm, lm.statement(NEAR.prompt), "the")
    assert p_new == pytest.approx(two.after.p_new, rel=1e-4), "judged without it"
    ledger.undo()
    assert torch.equal(logits(lm, ledger), first)


# -- what is said of it -------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"clamp": "0"}, {"steps": "1"}])
def test_an_edit_that_does_not_take_says_so(change: dict[str, str], hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    events, outcome = run(lm, hp | change)
    assert not outcome.success
    assert outcome.before.answer == outcome.after.answer
    assert outcome.verdict.startswith(
        f"Not changed: the model says {outcome.after.answer!r}, not 'capital' (P(new) "
    )
    assert "Try another method" in outcome.verdict
    applied = events[-1]
    assert isinstance(applied, EditApplied)
    assert not applied.success
    assert next(m for m in outcome.metrics if m.name == "said").after == 0.0
    assert outcome.metrics[-1].after == 0.0  # weight


def answered(text: str, ended: bool = True) -> Answered:
    return Answered(text, 0.5, 0.1, ended)


@pytest.mark.parametrize(
    ("chat", "answer", "ended", "success"),
    [
        (True, "Sydney", True, True),
        (True, "sydney.", True, True),
        (True, "Sydney", False, False),  # cut off by the limit
        (True, "Sydney is the capital", True, False),
        (True, "Canberra", True, False),
        (False, "Sydney, which is large", False, True),
        (False, "Sydneysiders", True, False),
        (False, "the Sydney", True, True),
        (False, "in Sydney", True, False),
    ],
)
def test_the_rule_of_success(chat: bool, answer: str, ended: bool, success: bool) -> None:
    request = dataclasses.replace(QUESTION, chat=chat)
    assert module._succeeded(request, answered(answer, ended)) == success


def test_the_verdict_names_a_neighbour_that_moved() -> None:
    rows = [
        {"prompt": "Capital of Austria?", "before": "Vienna", "after": "Vienna", "kept": True},
        {"prompt": "Capital of France?", "before": "Paris", "after": "Sydney", "kept": False},
    ]
    metric = Metric(name="neighbours", before=1, after=0.5, n=2, detail={"rows": rows})
    verdict = module._verdict(QUESTION, answered("Sydney"), [metric])
    assert verdict == (
        "Changed, but 1 of 2 neighbours moved: 'Capital of France?' now gives 'Sydney' "
        "(before: 'Paris')."
    )
    kept = dataclasses.replace(metric, detail={"rows": rows[:1]}, n=1)
    assert module._verdict(QUESTION, answered("Sydney"), [kept]) == (
        "Changed and kept: 1 of 1 neighbours answer as before."
    )


def test_a_conversation_that_answers_otherwise_is_said() -> None:
    yes, no = answered("Sydney"), answered("Sydney. It is large.")
    there = "That is asked alone: in this conversation it says {!r}."
    for alone, behind, said in (
        (yes, None, []),
        (yes, yes, []),
        (no, no, []),
        (yes, no, [there.format(no.answer)]),
        (no, yes, [there.format(yes.answer)]),
    ):
        assert module._elsewhere(QUESTION, alone, behind) == said


def test_the_conversation_is_asked_as_the_edit_leaves_it(hp: dict[str, str]) -> None:
    lm = shared_lm("llama", chat=True)
    turns = (("Who wrote Emma?", "Jane Austen."),)
    asked = dataclasses.replace(QUESTION, history=turns)
    ledger = Ledger()
    _, outcome = finish(correct(lm, ledger, asked, method="r-rome", overrides=hp, probes=False))
    with lm.active(ledger.patches()):
        there = lm.reply(lm.render(asked.prompt, turns), 12)
        assert module._in_conversation(lm, asked).answer == there.text
    told = f"in this conversation it says {there.text!r}"
    behind = module.said(asked, there.text, there.reason == "stop")
    assert (told in outcome.verdict) is (behind != outcome.success)
    assert module._in_conversation(lm, QUESTION) is None


# -- the real model -----------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_chat_answer_of_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 64)
    _, lm = finish(LM.load("smollm2-135m"))
    ledger = Ledger()
    question = dataclasses.replace(QUESTION, target_new="Melbourne")
    prompt = lm.render(question.prompt)
    before, plain = lm.reply(prompt), lm.logits([prompt])
    _, outcome = finish(correct(lm, ledger, question, method="r-rome"))
    assert outcome.before.answer == before.text
    assert (outcome.success, outcome.after.answer) == (True, "Melbourne")
    assert outcome.after.p_new > 0.5 > outcome.before.p_new
    with lm.active(ledger.patches()):
        assert lm.reply(prompt).text == "Melbourne"
    ledger.undo()
    assert lm.reply(prompt).ids == before.ids
    assert torch.equal(lm.logits([prompt]), plain)
