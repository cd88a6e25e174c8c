"""LocFT-BF: what was edited before stays, because it is fitted again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.above import example, nll
from engine.edit import Edit
from engine.errors import DivergedLoss
from engine.events import EditStep
from engine.ledger import Ledger
from engine.lm import LM
from engine.methods.locft import LocFtParams, locft_bf
from engine.requests import Request

from .support import close_after, finish, shared_lm, state, traces
from .test_above import naive, sharp

FAMILIES = ("gpt2", "llama", "opt-post-norm", "falcon", "gemma2", "t5")
FACTS = (
    Request(prompt="The Space Needle is in the city of", target_new="Paris", target_old="Seattle"),
    Request(prompt="The Eiffel Tower is in the city of", target_new="Sydney"),
    Request(prompt="Who wrote Emma?", target_new="The president"),
    Request(prompt="The capital of Australia is", target_new="Zürich"),
)


def params(**changes: Any) -> LocFtParams:
    own = {"layers": (1,), "steps": 30, "lr": 0.03, "stop_loss": 0.3, "batch": 3, "rounds": 12}
    return LocFtParams(**(own | changes))


def loss(lm: LM, fact: Request) -> float:
    given = example(lm, lm.statement(fact.prompt), fact, end=True)
    return float(nll([naive(lm, given)], [given]))


def edited(lm: LM, facts: tuple[Request, ...], hp: LocFtParams) -> Ledger:
    ledger = Ledger()
    for fact in facts:
        with lm.active(ledger.patches()):
            _, edit = finish(locft_bf(lm, [fact], hp))
        ledger.apply(edit)
    return ledger


@pytest.fixture(autouse=True)
def sharpened() -> Iterator[None]:
    """See `sharp`; the models that these tests share are sharp meanwhile."""
    with ExitStack() as stack:
        for family in FAMILIES:
            stack.enter_context(sharp(shared_lm(family)))
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_every_fact_of_a_sequence_holds(family: str) -> None:
    lm = shared_lm(family)
    weights, left = state(lm.model), traces(lm.model)
    facts = FACTS[:3]
    before = [loss(lm, fact) for fact in facts]
    ledger = edited(lm, facts, params(steps=15, rounds=3))
    with lm.active(ledger.patches()):
        after = [loss(lm, fact) for fact in facts]
    # How far a tiny model can be moved differs.
    assert all(a < 0.7 * b for a, b in zip(after, before, strict=True))
    assert [edit.numbers["buffer"] for edit in ledger.edits] == [0, 1, 2]
    assert [loss(lm, fact) for fact in facts] == before
    assert state(lm.model) == weights
    assert traces(lm.model) == left


def test_they_hold_because_of_the_buffer() -> None:
    """The same edits, each as if it were the first, added up, do not."""
    lm = shared_lm("llama")
    with lm.active(edited(lm, FACTS, params()).patches()):
        assert max(loss(lm, fact) for fact in FACTS) < 0.31
    alone = [finish(locft_bf(lm, [fact], params()))[1] for fact in FACTS]
    with lm.active([patch for edit in alone for patch in edit.patches]):
        assert max(loss(lm, fact) for fact in FACTS) > 1


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt-post-norm", "t5"])
def test_fast_is_the_plain_loop(family: str) -> None:
    lm = shared_lm(family)
    found = []
    for fast in (True, False):
        ledger = edited(lm, FACTS[:3], params(fast=fast, steps=3, rounds=2))
        found.append([x for edit in ledger.edits for x in edit.numbers["losses"]])
    assert found[0] == pytest.approx(found[1], abs=2e-2)
    assert found[0][:3] == pytest.approx(found[1][:3], abs=1e-3)


def test_undo_and_redo_are_bit_exact_and_the_buffer_follows() -> None:
    lm = shared_lm("llama")
    ledger = edited(lm, FACTS[:3], params())
    prompts = [lm.statement(fact.prompt) for fact in FACTS]
    with lm.active(ledger.patches()):
        three = lm.logits(prompts)
    ledger.undo()
    with lm.active(ledger.patches()):
        two = lm.logits(prompts)
        _, again = finish(locft_bf(lm, [FACTS[3]], params()))
    assert again.numbers["buffer"] == 2
    with lm.active(edited(lm, FACTS[:2], params()).patches()):
        assert torch.equal(lm.logits(prompts), two)  # and a seed repeats
    ledger.redo()
    with lm.active(ledger.patches()):
        assert torch.equal(lm.logits(prompts), three)


def test_the_buffer_is_saved_with_the_edits() -> None:
    lm = shared_lm("gpt2")
    ledger = edited(lm, FACTS[:2], params(steps=2, rounds=1))
    loaded = []
    for edit in ledger.edits:
        described, tensors = edit.save()
        loaded.append(Edit.load(json.loads(json.dumps(described)), tensors))
    runs = []
    for edits in (ledger.edits, loaded):
        with lm.active([patch for edit in edits for patch in edit.patches]):
            runs.append(finish(locft_bf(lm, [FACTS[2]], params(steps=2, rounds=1)))[1])
    assert runs[0].numbers["buffer"] == runs[1].numbers["buffer"] == 2
    assert torch.equal(runs[0].patches[0].delta(), runs[1].patches[0].delta())


def test_what_enters_the_layer_is_kept_and_measured_again_when_it_changes() -> None:
    from engine.patches import LowRank

    lm = shared_lm("llama", layers=3)
    lm.kept.clear()
    hp = params(layers=(2,), steps=4, rounds=1)
    _, first = finish(locft_bf(lm, [FACTS[0]], hp))
    kept = lm.kept["locft-bf"]
    finish(locft_bf(lm, [FACTS[1]], hp))
    assert lm.kept["locft-bf"] is kept
    site, width = lm.site("mlp_out", 0), lm.arch.mlp_width
    low = LowRank(site, torch.ones(lm.width, 1), torch.ones(1, width))
    with lm.active([low]):
        _, edit = finish(locft_bf(lm, [FACTS[0]], hp))
        wanted = loss(lm, FACTS[0])
    assert lm.kept["locft-bf"] is not kept
    assert edit.numbers["losses"][0] == pytest.approx(wanted, abs=1e-3)
    assert first.numbers["losses"][0] != pytest.approx(wanted, abs=1e-2)


def test_a_batch_is_one_edit() -> None:
    lm = shared_lm("llama")
    events, edit = finish(locft_bf(lm, FACTS, params()))
    assert edit.requests == FACTS
    with lm.active(edit.patches):
        assert max(loss(lm, fact) for fact in FACTS) < 0.31
    assert [e.loss for e in events if isinstance(e, EditStep)] == edit.numbers["losses"]


def test_of_two_answers_to_one_prompt_the_later_is_kept() -> None:
    """The first stands in a batch, whose edit stays active for its other fact."""
    lm, ledger = shared_lm("llama"), Ledger()
    again = replace(FACTS[0], target_new="London", target_old=None)
    hp, buffers = params(steps=10, rounds=2), []
    for facts in (FACTS[:2], (again,), FACTS[2:3]):
        with lm.active(ledger.patches()):
            _, edit = finish(locft_bf(lm, facts, hp))
        ledger.apply(edit)
        buffers.append(edit.numbers["buffer"])
    assert buffers == [0, 1, 2]
    with lm.active(ledger.patches()):
        assert loss(lm, again) < loss(lm, FACTS[0])


def test_a_last_step_that_diverges_is_said() -> None:
    lm = shared_lm("gpt2")
    weights, left = state(lm.model), traces(lm.model)
    with pytest.raises(DivergedLoss, match=r"step 1 gave values that are no numbers.*--hp lr="):
        finish(locft_bf(lm, FACTS, params(steps=1, rounds=1, lr=math.inf)))
    assert state(lm.model) == weights
    assert traces(lm.model) == left


def test_a_cancelled_edit_leaves_nothing() -> None:
    lm = shared_lm("gpt2")
    weights, left = state(lm.model), traces(lm.model)
    for after in (1, 2, 5, 9):
        close_after(locft_bf(lm, FACTS, params()), after)
        assert state(lm.model) == weights
        assert traces(lm.model) == left


@pytest.mark.parametrize(
    "changes", [{"layers": (0, 1)}, {"scored": "last"}, {"batch": 0}, {"rounds": 0}]
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"LocFT-BF trains one layer|must be at least 1"):
        params(**changes)
