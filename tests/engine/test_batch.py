"""Many facts in one edit: measured, edited, measured again, and undone exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.batch import ask_all, correct_batch, said_all, took
from engine.errors import AlreadySaid, BadRequest
from engine.events import EditApplied, EditPlanned, Event, Metric, Note
from engine.ledger import Ledger
from engine.lm import LM
from engine.outcome import Outcome
from engine.requests import Request

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
