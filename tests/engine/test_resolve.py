"""Edits of a ledger solved again, together."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import pytest
import torch

from engine.batch import ask_all, took
from engine.edit import Edit
from engine.errors import BadRequest, BadSetting, UnknownName
from engine.events import EditApplied, EditPlanned, Event, Finding, Note
from engine.ledger import Ledger
from engine.lm import LM
from engine.methods import MethodInfo, get
from engine.methods.emmet import EmmetParams, emmet
from engine.methods.rome import RomeParams, r_rome
from engine.patches import Dense, LowRank
from engine.requests import Request
from engine.resolve import (
    ResolveParams,
    inserted,
    resolvable,
    resolve,
    solved_again,
    sought_again,
)

from .support import close_after, finish, shared_lm, state

FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="capital"),
    Request(prompt="The capital of Australia", subject="Australia", target_new="tower"),
    Request(prompt="The writer of Emma", subject="Emma", target_new="Paris"),
)


def small(text: str) -> EmmetParams:
    return EmmetParams(
        layer=0, contexts=1, steps=5, relative_lr=1.0, clamp=50.0, text=text, tokens=10_000,
        past=False,
    )  # fmt: skip


def notes(events: Sequence[Event]) -> list[Note]:
    return [event for event in events if isinstance(event, Note)]


def one_by_one(lm: LM, text: str) -> Ledger:
    """Each made in the presence of those before it, which it does not hold in place."""
    hp = small(text)
    ledger = Ledger()
    for fact in FACTS:
        with lm.active(ledger.patches()):
            _, edit = finish(emmet(lm, [fact], hp))
        ledger.apply(edit)
    return ledger


def asked_for(edits: tuple[Edit, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys [n, d_ff] of all facts, and where each had to go, from the unedited map."""
    keys, moves = [], []
    for i, edit in enumerate(edits):
        (patch,) = edit.patches
        assert isinstance(patch, LowRank)
        assert patch.keys is not None
        key = patch.keys[0].mean(0)
        before = [p for e in edits[:i] for p in e.patches if isinstance(p, LowRank)]
        moves.append(patch.A[:, 0] + sum(p.A @ (p.B @ key) for p in before))
        keys.append(key)
    return torch.stack(keys), torch.stack(moves)


def error(edits: tuple[Edit, ...], keys: torch.Tensor, moves: torch.Tensor) -> float:
    patches = [p for e in edits for p in e.patches if isinstance(p, LowRank)]
    moved = sum((keys @ p.B.T) @ p.A.T for p in patches)
    return float((moved - moves).norm() / moves.norm())


def test_every_fact_gets_what_it_asked_for_and_undo_brings_the_edits_back(text: str) -> None:
    lm = shared_lm("llama")
    ledger, before = one_by_one(lm, text), state(lm.model)
    edits = ledger.edits
    keys, moves = asked_for(edits)
    prompts = [lm.statement(fact.prompt) for fact in FACTS]
    with lm.active(ledger.patches()):
        apart = lm.logits(prompts)
    events, outcome = finish(
        resolve(lm, ledger, overrides={"ridge": "1e-6", "text": text, "tokens": "10000"})
    )
    assert [type(events[0]), type(events[-1])] == [EditPlanned, EditApplied]
    (told,) = (event for event in events if isinstance(event, Finding))
    site = edits[0].patches[0].site
    assert told.text == f"3 facts of 3 edits, at {site}"
    assert [row["label"] for row in told.rows] == [f"{f.prompt} → {f.target_new}" for f in FACTS]
    assert ledger.acting == (outcome.edit,)
    assert outcome.edit.requests == FACTS
    assert error(edits, keys, moves) > 0.05  # the later edits moved the earlier keys
    assert error((outcome.edit,), keys, moves) < 0.01
    ledger.undo()
    assert ledger.acting == edits
    with lm.active(ledger.patches()):
        assert torch.equal(lm.logits(prompts), apart)
    assert state(lm.model) == before


def test_of_many_facts_the_first_are_named(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    others = (f"The city of the {n}th Space Needle" for n in range(8))
    facts = tuple(dataclasses.replace(FACTS[0], prompt=prompt) for prompt in others)
    many = dataclasses.replace(ledger.edits[0], requests=facts, id="many")
    ledger.apply(many)
    events, _ = finish(resolve(lm, ledger, overrides={"text": text, "tokens": "10000"}))
    told = next(event for event in events if isinstance(event, Finding))
    assert told.text.startswith("11 facts of 4 edits")
    assert len(told.rows) == 9
    assert told.rows[-1] == {"label": "and 3 more", "value": None}


def test_what_was_solved_again_can_be_solved_again(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    hp = {"ridge": "1e-4", "text": text, "tokens": "10000"}
    ledger.drop(ledger.edits[1].id)
    _, first = finish(resolve(lm, ledger, overrides=hp))
    assert len(first.edit.requests) == 2
    assert resolvable(ledger) == (first.edit,)
    with pytest.raises(BadRequest, match="it takes two"):
        finish(resolve(lm, ledger, overrides=hp))


def test_what_was_made_on_top_of_a_dropped_edit_gets_the_whole_of_what_it_asked_for(
    text: str,
) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    keys, moves = asked_for(ledger.edits)
    ledger.drop(ledger.edits[0].id)
    assert error(ledger.edits, keys[1:], moves[1:]) > 0.05
    _, outcome = finish(
        resolve(lm, ledger, overrides={"ridge": "1e-6", "text": text, "tokens": "10000"})
    )
    assert error((outcome.edit,), keys[1:], moves[1:]) < 0.01


def test_facts_with_one_key_and_with_two_are_solved_together_and_again(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    hp = RomeParams(
        layer=0, contexts=2, steps=3, relative_lr=1.0, both=True, text=text, tokens=10_000
    )
    fact = Request(prompt="The name of London", subject="London", target_new="Paris")
    with lm.active(ledger.patches()):
        _, edit = finish(r_rome(lm, [fact], hp))
    ledger.apply(edit)
    overrides = {"text": text, "tokens": "10000"}
    _, first = finish(resolve(lm, ledger, overrides=overrides))
    assert sorted(p.keys.shape[1] for p in first.edit.patches) == [1, 2]
    other = Request(prompt="The river of Bern", subject="Bern", target_new="Po")
    with lm.active(ledger.patches()):
        _, edit = finish(r_rome(lm, [other], hp))
    ledger.apply(edit)
    _, second = finish(resolve(lm, ledger, overrides=overrides))
    assert len(second.edit.requests) == 5


def test_edits_without_keys_are_left_as_they_are(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    (patch,) = ledger.edits[0].patches
    other = LowRank(patch.site, torch.zeros(16, 1), torch.zeros(1, 24))
    ledger.apply(Edit(method="lora", requests=FACTS[:1], patches=(other,), hparams={}))
    assert len(resolvable(ledger)) == 3
    hp = {"text": text, "tokens": "10000"}
    finish(resolve(lm, ledger, overrides=hp))
    assert [edit.method for edit in ledger.acting] == ["lora", "resolve"]


def test_a_cancel_or_a_wrong_setting_changes_nothing(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    edits = ledger.edits
    with pytest.raises(BadSetting):
        finish(resolve(lm, ledger, overrides={"rigde": "1"}))
    hp = {"text": text, "tokens": "10000"}
    for count in (1, 3, 6):
        close_after(resolve(lm, ledger, overrides=hp), count)
    assert ledger.edits == edits


SAYABLE = tuple(  # by a random model, at layer 0
    Request(prompt=f"The {name}", subject=subject, target_new="capital")
    for name, subject in (
        ("capital of Australia", "Australia"),
        ("writer of Emma", "Emma"),
        ("name of London", "London"),
    )
)


def short(lm: LM, text: str) -> tuple[Ledger, EmmetParams]:
    """The second of three facts was asked for with a value of nothing; settings that are enough."""
    enough = EmmetParams(
        layer=0, contexts=1, steps=12, relative_lr=1.0, clamp=50.0, kl=0.01, decay=1e-4, text=text,
        tokens=10_000,
    )  # fmt: skip
    ledger = Ledger()
    for fact, hp in zip(
        SAYABLE, (enough, dataclasses.replace(enough, steps=1), enough), strict=True
    ):
        with lm.active(ledger.patches()):
            _, edit = finish(emmet(lm, [fact], hp))
        ledger.apply(edit)
    return ledger, enough


def told(lm: LM, ledger: Ledger, edit: Edit) -> list[bool]:
    """Whether each fact of an edit is said with it."""
    with lm.active(Ledger((*ledger.edits, edit)).patches()):
        _, asked = finish(ask_all(lm, edit.requests))
    return [took(fact, a.answer) for fact, a in zip(edit.requests, asked, strict=True)]


@pytest.mark.parametrize("method", ["emmet", "r-rome"])
def test_facts_that_are_not_said_are_inserted_anew(method: str, text: str) -> None:
    lm = shared_lm("llama")
    ledger, hp = short(lm, text)
    again = ResolveParams(ridge=1e-6, again=1, text=text, tokens=10_000)
    _, edit = finish(solved_again(lm, ledger.acting, again))
    seen: list[Request] = []
    own = {f.name: getattr(hp, f.name) for f in dataclasses.fields(RomeParams)}
    params = hp if method == "emmet" else RomeParams(**own)

    def insert(requests: Sequence[Request]) -> Generator[Event, None, list[Edit]]:
        seen.extend(requests)
        return inserted(lm, requests, get(method), params)

    _, same = finish(sought_again(lm, ledger, edit, None, again))
    assert same is edit
    said = told(lm, ledger, edit)
    assert 0 < sum(said) < len(SAYABLE)
    _, better = finish(sought_again(lm, ledger, edit, insert, again))
    assert seen == [fact for fact, done in zip(edit.requests, said, strict=True) if not done]
    assert better.requests == edit.requests == SAYABLE
    assert (better.id, better.supersedes) == (edit.id, edit.supersedes)
    assert all(told(lm, ledger, better))


def test_a_round_that_makes_it_worse_is_not_kept(text: str) -> None:
    lm = shared_lm("llama")
    ledger, hp = short(lm, text)
    again = ResolveParams(again=2, text=text, tokens=10_000)
    _, edit = finish(solved_again(lm, ledger.acting, again))

    def nothing(requests: Sequence[Request]) -> Generator[Event, None, list[Edit]]:
        return inserted(lm, requests, get("emmet"), dataclasses.replace(hp, steps=1))

    _, same = finish(sought_again(lm, ledger, edit, nothing, again))
    assert same is edit


def test_the_method_for_facts_inserted_anew_is_known_before_anything_is_done(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    with pytest.raises(UnknownName, match="no-such"):
        finish(resolve(lm, ledger, overrides={"again": "1", "method": "no-such"}))


def test_facts_are_inserted_anew_as_the_last_edit_was_made(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm("llama")
    ledger, hp = short(lm, text)
    ledger.apply(dataclasses.replace(ledger.edits[0], id="other", method="memit"))
    seen: list[object] = []

    def noted(lm: LM, requests: Sequence[Request], info: MethodInfo, hp: object) -> Any:
        seen.append(hp)
        return inserted(lm, requests, info, hp)

    monkeypatch.setattr("engine.resolve.inserted", noted)
    given = {"again": "1", "method": "emmet", "text": text, "tokens": "10000"}
    _, outcome = finish(resolve(lm, ledger, overrides=given))
    assert seen[:1] == [hp]
    assert len(outcome.edit.requests) == len(SAYABLE)


def test_a_fact_of_a_batch_that_was_corrected_since_is_left_out(text: str) -> None:
    lm, hp = shared_lm("llama"), small(text)
    ledger = Ledger()
    _, batch = finish(emmet(lm, FACTS[:2], hp))
    ledger.apply(batch)
    renewed = dataclasses.replace(FACTS[0], target_new="Paris")
    with lm.active(ledger.patches()):
        _, later = finish(emmet(lm, [renewed], hp))
    ledger.apply(later)
    events, outcome = finish(
        resolve(lm, ledger, overrides={"ridge": "1e-6", "text": text, "tokens": "10000"})
    )
    assert outcome.edit.requests == (FACTS[1], renewed)
    assert outcome.edit.supersedes == (batch.id, later.id)
    assert any("corrected after their batch: 1" in e.text for e in notes(events))
    keys, moves = asked_for(ledger.edits[:2])
    later_key = later.patches[0].keys[0].mean(0)[None]  # type: ignore[union-attr,index]
    assert error((outcome.edit,), later_key, moves[1:]) < 0.01
    assert len(keys) == 2


def test_edits_all_of_whose_facts_were_corrected_since_are_nothing_to_solve(text: str) -> None:
    lm, ledger = shared_lm("llama"), Ledger()
    _, batch = finish(emmet(lm, FACTS[:2], small(text)))
    ledger.apply(batch)
    ledger.apply(dataclasses.replace(batch, id="b" * 16))
    later = Edit(method="ft-m", requests=FACTS[:2], patches=(), hparams={}, id="c" * 16)
    ledger.apply(later)
    with pytest.raises(BadRequest, match="later edits answer every fact"):
        finish(resolve(lm, ledger, overrides={"text": text, "tokens": "10000"}))
    assert ledger.acting[-1] is later


def test_patches_that_cannot_be_solved_again_go_on_acting_and_are_reckoned_with(text: str) -> None:
    lm = shared_lm("llama")
    ledger = one_by_one(lm, text)
    site = ledger.edits[0].patches[0].site
    weight = lm.model.get_submodule(site).weight
    trained = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    dense = Edit(
        method="ft-m", requests=(Request(prompt="The tower", target_new="x"),),
        patches=(Dense(site, 0.1 * trained),), hparams={}, id="trained",
    )  # fmt: skip
    first = Ledger()
    first.apply(dense)
    for fact in FACTS[:2]:
        with lm.active(first.patches()):
            _, edit = finish(emmet(lm, [fact], small(text)))
        first.apply(edit)
    wanted = [edit.patches[0].moves for edit in first.edits[1:]]  # type: ignore[union-attr]
    _, outcome = finish(
        resolve(lm, first, overrides={"ridge": "1e-6", "text": text, "tokens": "10000"})
    )
    assert first.acting == (dense, outcome.edit)
    (patch,) = outcome.edit.patches
    assert isinstance(patch, LowRank)
    assert patch.keys is not None
    moved = sum(p.moved(patch.keys).mean(1) for p in (dense.patches[0], patch))
    goals = torch.cat([moves.T for moves in wanted if moves is not None])
    assert float((moved - goals).norm()) < 0.01 * float(goals.norm())
