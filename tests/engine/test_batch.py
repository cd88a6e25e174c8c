"""Many facts in one edit: measured, edited, measured again, and undone exactly."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import anchors
from engine.batch import ask_all, correct_batch, said_all, took
from engine.errors import AlreadySaid, BadRequest
from engine.evaluate.metrics import scores
from engine.evaluate.probes import TOKENS
from engine.events import EditApplied, EditPlanned, Event, Loading, Metric, Note
from engine.ledger import Ledger
from engine.lm import LM
from engine.outcome import Outcome
from engine.requests import Request
from engine.tokens import target_ids

from .support import CORPUS, close_after, finish, shared_lm, state, traces

FACTS = (
    Request(
        prompt="The city of the Space Needle", subject="Space Needle", target_new="capital",
        rephrases=("Now, the city of the Space Needle",), neighbours=("The city of Emma",),
    ),
    Request(prompt="The capital of Australia", subject="Australia", target_new="tower"),
    Request(prompt="What is the name of Emma?", subject="Emma", target_new="Paris", chat=True),
)  # fmt: skip


@pytest.fixture
def hp(tmp_path: Path) -> dict[str, str]:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CORPUS), encoding="utf-8")
    return {
        "first": "0", "last": "0", "contexts": "2", "steps": "16", "relative_lr": "1",
        "clamp": "50", "decay": "1e-4", "kl": "0.01", "text": str(text), "tokens": "10000",
        "weight": "1e-3",
    }  # fmt: skip


def run(
    lm: LM,
    ledger: Ledger,
    hp: dict[str, str],
    facts: Any = FACTS,
    method: str = "memit",
    **more: Any,
) -> tuple[list[Event], Outcome]:
    return finish(correct_batch(lm, ledger, facts, method=method, overrides=hp, **more))


def test_each_fact_is_judged_and_undo_is_exact(hp: dict[str, str]) -> None:
    lm, ledger = shared_lm("llama"), Ledger()
    prompts = [lm.statement(fact.prompt) for fact in FACTS]
    unedited, before = lm.logits(prompts), state(lm.model)
    events, outcome = run(lm, ledger, hp)
    assert [fact.request.prompt for fact in outcome.facts] == [fact.prompt for fact in FACTS]
    assert all(fact.after.p_new > fact.before.p_new for fact in outcome.facts[:2])
    assert outcome.success == all(fact.success for fact in outcome.facts)
    with lm.active(ledger.patches()):
        said = lm.answers([lm.statement(FACTS[0].prompt)], max_tokens=24)
        assert said == [outcome.facts[0].after.answer]
    (edit,) = ledger.edits
    assert len(edit.requests) == 3
    metrics = {e.name: e for e in events if isinstance(e, Metric)}
    took = sum(fact.success for fact in outcome.facts)
    assert metrics["said"].after == pytest.approx(took / 3)
    assert metrics["rephrased"].n == metrics["neighbours"].n == 1
    assert isinstance(events[-1], EditApplied)
    ledger.undo()
    with lm.active(ledger.patches()):
        assert torch.equal(lm.logits(prompts), unedited)
    assert state(lm.model) == before


def test_a_cancelled_batch_leaves_nothing(hp: dict[str, str]) -> None:
    lm, ledger = shared_lm("llama"), Ledger()
    run(lm, Ledger(), hp)  # what is made once per model is not part of the next
    events, _ = run(lm, Ledger(), hp)
    hooks = traces(lm.model)
    for count in (1, len(events) // 2, len(events)):
        close_after(correct_batch(lm, ledger, FACTS, method="memit", overrides=hp), count)
        assert ledger.edits == ()
        assert traces(lm.model) == hooks
        assert lm.patches == ()


def test_asking_is_told_a_batch_at_a_time_and_answers_as_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = shared_lm("llama")
    facts = [
        dataclasses.replace(fact, target_old=old)
        for fact, old in zip(FACTS * 3, ("Emma", None, "city", None, "x") * 2, strict=False)
    ]
    whole, at_once = finish(ask_all(lm, facts))
    assert [(e.done, e.total) for e in whole if isinstance(e, Loading)] == [(0, 9), (9, 9)]
    prompts = [lm.prompt(fact.prompt, chat=fact.chat) for fact in facts]
    assert [a.answer for a in at_once] == lm.answers(prompts, max_tokens=TOKENS)
    wanted = [
        (p.ids, target_ids(lm.tokenizer, p, f.target_new))
        for p, f in zip(prompts, facts, strict=True)
    ]
    assert [a.p_new for a in at_once] == [math.exp(-s.nll) for s in scores(lm, wanted)]

    monkeypatch.setattr("engine.batch.BATCH", 2)
    events, found = finish(ask_all(lm, facts))
    told = [(e.done, e.total) for e in events if isinstance(e, Loading)]
    assert told == [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    assert [a.answer for a in found] == [a.answer for a in at_once]
    for name in ("p_new", "p_old"):
        values = [[getattr(a, name) for a in answers] for answers in (found, at_once)]
        assert values[0] == pytest.approx(values[1], rel=1e-4, nan_ok=True)
    assert [math.isnan(a.p_old) for a in found] == [not fact.target_old for fact in facts]
    assert finish(ask_all(lm, []))[1] == []


@pytest.mark.parametrize("method", ["memit", "emmet"])
def test_a_batch_can_be_cancelled_between_any_two_batches_of_prompts(
    hp: dict[str, str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batch.BATCH", 1)
    monkeypatch.setattr("engine.batch.TOKENS", 2)  # this, and the two below, to take less time
    monkeypatch.setattr("engine.batch.fluency", lambda _: 1.0)
    monkeypatch.setattr("engine.batch.alarms.warnings", lambda *_: [])
    lm, ledger = shared_lm("llama"), Ledger()
    layers = {"layer": "0"} if method == "emmet" else {"first": "0", "last": "1"}
    short = {k: v for k, v in hp.items() if k not in ("first", "last")} | layers
    short |= {"steps": "1", "contexts": "1", "anchors": "4"}
    prompts = [lm.statement(fact.prompt) for fact in FACTS]
    run(lm, Ledger(), short, method=method)
    events, _ = run(lm, Ledger(), short, method=method)
    stages = [(e.stage, e.done, e.total) for e in events if isinstance(e, Loading)]
    once = [("probes", float(i), 3.0) for i in range(4)] + [
        ("probes", float(i), 2.0) for i in range(3)
    ]
    assert [stage for stage in stages if stage[0] == "probes"] == once * 2
    held = [stage for stage in stages if stage[0] == "anchors"]
    assert held[-1][1] == held[-1][2] == sum(len(anchors.names(fact, 4)) for fact in FACTS)
    unedited, before, hooks = lm.logits(prompts), state(lm.model), traces(lm.model)
    for count in [i + 1 for i, event in enumerate(events) if isinstance(event, Loading)]:
        close_after(correct_batch(lm, ledger, FACTS, method=method, overrides=short), count)
        assert ledger.edits == lm.patches == ()
        assert (state(lm.model), traces(lm.model)) == (before, hooks)
        assert torch.equal(lm.logits(prompts), unedited)


def test_a_fact_that_is_known_already_is_left_out_and_said(hp: dict[str, str]) -> None:
    lm = shared_lm("llama")
    (answer,) = lm.answers([lm.statement(FACTS[1].prompt)], max_tokens=24)
    known = Request(prompt=FACTS[1].prompt, subject="Australia", target_new=answer.split()[0])
    events, outcome = run(lm, Ledger(), hp, (FACTS[0], known))
    assert [fact.request.prompt for fact in outcome.facts] == [FACTS[0].prompt]
    (already,) = outcome.already
    assert (already.request, already.before, already.success) == (known, already.after, True)
    assert any("left out" in e.text for e in events if isinstance(e, Note))
    with pytest.raises(AlreadySaid, match="already answers every"):
        run(lm, Ledger(), hp, (known,))


def test_who_is_said_is_told_without_the_rest_of_the_answers() -> None:
    lm = shared_lm("llama")
    asked = [*FACTS, Request(prompt="The river of Emma", subject="Emma", target_new="x")]
    plain = [dataclasses.replace(fact, chat=False) for fact in asked]
    answers = lm.answers([lm.statement(fact.prompt) for fact in plain], max_tokens=24)
    words = [answer.split()[: 1 + i] for i, answer in enumerate(answers)]
    said = [
        dataclasses.replace(fact, target_new=" ".join(own))
        for fact, own in zip(plain, words, strict=True)
    ]
    parts = [dataclasses.replace(fact, target_new=fact.target_new[:-1]) for fact in said]
    facts = [*said, *parts, *asked]
    _, told = finish(said_all(lm, facts))
    _, full = finish(ask_all(lm, facts))
    assert told == [took(fact, a.answer) for fact, a in zip(facts, full, strict=True)]
    assert any(told[: len(said)])
    assert not all(told)


def test_what_cannot_be_a_batch_is_refused(hp: dict[str, str]) -> None:
    lm = shared_lm("llama")
    with pytest.raises(BadRequest, match="one fact at a time"):
        run(lm, Ledger(), {}, method="r-rome")
    with pytest.raises(BadRequest, match="asked for twice"):
        run(lm, Ledger(), hp, (FACTS[0], FACTS[0]))
    with pytest.raises(BadRequest, match="no facts"):
        run(lm, Ledger(), hp, ())


def test_a_batch_supersedes_earlier_edits_of_its_questions(hp: dict[str, str]) -> None:
    lm, ledger = shared_lm("llama"), Ledger()
    _, first = run(lm, ledger, hp, FACTS[:1])
    events, second = run(
        lm,
        ledger,
        hp,
        (Request(prompt=FACTS[0].prompt, subject="Space Needle", target_new="river"), FACTS[1]),
    )
    assert second.edit.supersedes == (first.edit.id,)
    assert ledger.acting == (second.edit,)
    assert next(e for e in events if isinstance(e, EditPlanned)).edit == second.edit.id
    ledger.undo()
    assert ledger.acting == (first.edit,)
