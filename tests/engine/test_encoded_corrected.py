"""Correcting an encoder-decoder that has learnt something: said, taken back, solved again, told."""

from __future__ import annotations

import random

import pytest
import torch

from engine import correct
from engine.edit import Edit
from engine.errors import AlreadySaid
from engine.events import EditPlanned, Event, Note
from engine.influence import influences
from engine.ledger import Ledger
from engine.lm import LM
from engine.outcome import Outcome
from engine.requests import Request
from engine.resolve import resolve
from engine.tokens import last_token, target_ids
from tests.tiny import tiny_model, tiny_tokenizer

from .encoders import FAMILIES, site_of
from .support import CORPUS, finish, state, traces

FACTS = {
    "Space Needle": "Emma",
    "Eiffel Tower": "Australia",
    "Emma": "city",
    "Australia": "city",
    "Zürich": "Emma",
    "England": "capital",
    "Steventon": "Australia",
    "Jane Austen": "Emma",
}
OPENINGS = [" ".join(t.split()[:n]).rstrip(".,;:!?") for t in CORPUS for n in (3, 5, 7, 10)]


def fact(subject: str, target: str) -> Request:
    return Request(prompt=f"Where is {subject}?", subject=subject, target_new=target, chat=True)


@pytest.fixture(scope="module", params=FAMILIES)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LM:
    """The first tiny model that has learnt to look facts up where edits go in. Which ones have is
    decided by rounding on the way, and so by the processor."""
    file = tmp_path_factory.mktemp("taught") / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    models = (teach(request.param, seed) for seed in range(12))
    return next(lm for lm in models if editable(lm, str(file)))


def editable(lm: LM, text: str) -> bool:
    ledger = Ledger()
    try:
        if not all(corrected(lm, ledger, text, one)[1].success for one in (NEEDLE, EMMA)):
            return False
    except AlreadySaid:  # the first edit reached the second subject too
        return False
    overrides = {"text": text, "tokens": "10000", "ridge": "0"}
    return finish(resolve(lm, ledger, overrides=overrides))[1].success


def teach(family: str, seed: int) -> LM:
    """A tiny model that answers where things are by what they are, whatever stands before."""
    model = tiny_model(family, seed=seed, width=32, mlp_width=64, num_decoder_layers=1)
    lm = LM(model, tiny_tokenizer(family), name="taught", fingerprint=f"{family}{seed}!")
    facts = [fact(subject, answer) for subject, answer in FACTS.items()] * 2
    answers = [target_ids(lm.tokenizer, lm.render(f.prompt), f.target_new) for f in facts]
    labels = torch.full((len(facts), max(map(len, answers))), -100)
    for row, answer in zip(labels, answers, strict=True):
        row[: len(answer)] = torch.tensor(answer)
    drawn = random.Random(0)
    model.requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in range(100):
        put = [f"{drawn.choice(OPENINGS)}. " if i % 2 else "" for i in range(len(facts))]
        asked = [lm.render(o + f.prompt).ids for o, f in zip(put, facts, strict=True)]
        ids, mask = lm.pack(asked)
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return lm


def corrected(lm: LM, ledger: Ledger, text: str, request: Request) -> tuple[list[Event], Outcome]:
    own = {"text": text, "tokens": "10000", "contexts": "2", "anchors": "0", "layer": "1"}
    return finish(
        correct.correct(lm, ledger, request, method="r-rome", overrides=own, probes=False)
    )


NEEDLE, EMMA = fact("Space Needle", "capital"), fact("Emma", "capital")


def test_it_says_the_target_and_takes_it_back(taught: LM, text: str) -> None:
    ledger, weights = Ledger(), state(taught.model)
    prompts = [taught.render(fact(subject, "x").prompt) for subject in FACTS]
    plain = taught.logits(prompts)
    events, outcome = corrected(taught, ledger, text, NEEDLE)
    assert outcome.success, outcome.verdict
    assert (outcome.before.answer, outcome.after.answer) == ("Emma", "capital")
    assert outcome.after.p_new > 2 * outcome.before.p_new
    assert outcome.after.p_old < 0.5 * outcome.before.p_old
    notes = [e.text for e in events if isinstance(e, Note)]
    assert notes[0] == "r-rome is experimental on 't5' models"
    (planned,) = (e for e in events if isinstance(e, EditPlanned))
    assert planned.sites == (site_of(taught, 1),)
    assert len(planned.contexts) == 2
    saved = Edit.load(*outcome.edit.save())
    with taught.active(saved.patches):
        assert taught.answers(prompts[:1]) == ["capital"]
        assert not torch.equal(taught.logits(prompts), plain)
    ledger.undo()
    with taught.active(ledger.patches()):
        assert torch.equal(taught.logits(prompts), plain)
    assert (state(taught.model), traces(taught.model)) == (weights, {})


def test_two_edits_are_solved_again_as_one(taught: LM, text: str) -> None:
    ledger = Ledger()
    for request in (NEEDLE, EMMA):
        assert corrected(taught, ledger, text, request)[1].success
    overrides = {"text": text, "tokens": "10000", "ridge": "0"}
    _, outcome = finish(resolve(taught, ledger, overrides=overrides))
    assert [one.success for one in outcome.facts] == [True, True]
    assert {patch.site for patch in outcome.edit.patches} == {site_of(taught, 1)}
    ledger.undo()
    assert len(ledger.acting) == 2


def test_why_reads_the_prompt_where_the_edit_does(taught: LM, text: str) -> None:
    """Firing is told over the encoder's positions, and is 1 at the edit's own key."""
    _, outcome = corrected(taught, Ledger(), text, NEEDLE)
    prompt = taught.render(NEEDLE.prompt)
    answer = target_ids(taught.tokenizer, prompt, "capital")
    _, (found,) = finish(influences(taught, [outcome.edit], prompt, answer))
    assert len(found.firing) == len(prompt.ids)
    assert found.firing[last_token(prompt, "Space Needle")] == pytest.approx(1)
    assert found.moves > 1
