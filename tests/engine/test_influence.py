"""Which edits had a part in an answer: against the model run by hand, with and without them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine.edit import Edit
from engine.events import Loading
from engine.influence import Influence, influences
from engine.ledger import Ledger
from engine.patches import LowRank
from engine.requests import Request
from engine.tokens import last_token
from tests.engine.support import finish, shared_lm, state, traces

QUESTION = "What is the capital of Australia?"
OTHER = "Who built the Space Needle?"
ANSWER = "Paris"


def key_of(lm: Any, site: str, question: str, subject: str) -> torch.Tensor:
    """What a site reads at a subject's last token, by a hook of our own."""
    prompt = lm.prompt(question, chat=True)
    seen: list[torch.Tensor] = []
    hook = lm.model.get_submodule(site).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0])
    )
    with torch.no_grad():
        lm.model(torch.tensor([prompt.ids]))
    hook.remove()
    return seen[0].reshape(len(prompt.ids), -1)[last_token(prompt, subject)]


def edit_of(lm: Any, question: str, subject: str, *, rank: int = 1) -> Edit:
    """A patch that answers to one key: B = k / ‖k‖², A of chance."""
    site = lm.site("mlp_out", 1)
    k = key_of(lm, site, question, subject)
    out = lm.width
    A = 0.5 * torch.randn(out, rank, generator=torch.Generator().manual_seed(3))
    patch = LowRank(site, A, (k / k.dot(k))[None].repeat(rank, 1))
    request = Request(prompt=question, subject=subject, target_new=ANSWER, chat=True)
    return Edit(method="by hand", requests=(request,), patches=(patch,), hparams={})


def by_hand(lm: Any, edits: list[Edit], prompt: Any, answer: tuple[int, ...]) -> float:
    with lm.active(Ledger(edits).patches()), torch.no_grad():
        out = lm.model(torch.tensor([[*prompt.ids, *answer]])).logits[0].log_softmax(-1)
    return sum(float(out[len(prompt.ids) - 1 + i, t]) for i, t in enumerate(answer))


@pytest.fixture(params=["llama", "gpt2", "opt"])
def lm(request: pytest.FixtureRequest) -> Any:
    return shared_lm(request.param)


def run(lm: Any, edits: list[Edit], prompt: Any, answer: tuple[int, ...]) -> tuple[Influence, ...]:
    _, found = finish(influences(lm, edits, prompt, answer))
    return found


def test_what_each_edit_is_worth_to_an_answer(lm: Any) -> None:
    edits = [edit_of(lm, QUESTION, "Australia"), edit_of(lm, OTHER, "Space Needle", rank=2)]
    prompt = lm.prompt(QUESTION, chat=True)
    answer = lm.render(ANSWER).ids[:3]
    before = state(lm.model)
    one, two = run(lm, edits, prompt, answer)
    for found, others in ((one, [edits[1]]), (two, [edits[0]])):
        assert found.with_it == pytest.approx(by_hand(lm, edits, prompt, answer), abs=1e-3)
        assert found.without == pytest.approx(by_hand(lm, others, prompt, answer), abs=1e-3)
        assert found.moves == found.with_it - found.without
        assert len(found.firing) == len(prompt.ids) + len(answer) - 1
    assert (one.edit, two.edit) == (edits[0].id, edits[1].id)
    assert (state(lm.model), traces(lm.model)) == (before, {})


def test_a_patch_fires_on_its_own_question_as_strongly_as_on_its_own_question(lm: Any) -> None:
    edit = edit_of(lm, QUESTION, "Australia")
    prompt = lm.prompt(QUESTION, chat=True)
    (found,) = run(lm, [edit], prompt, (5, 6))
    at = last_token(prompt, "Australia")
    assert found.firing[at] == pytest.approx(1.0, rel=1e-3)
    assert found.fires == max(found.firing)
    assert found.firing[found.position] == found.fires
    row = (*prompt.ids, 5)
    assert found.token == lm.tokenizer.decode([row[found.position]])


def test_the_scale_of_a_patch_does_not_count_its_direction_does(lm: Any) -> None:
    edit = edit_of(lm, QUESTION, "Australia")
    (patch,) = edit.patches
    louder = LowRank(patch.site, patch.A / 7, patch.B * 7)
    prompt = lm.prompt(OTHER, chat=True)
    (one,) = run(lm, [edit], prompt, (5, 6))
    loud = Edit(method="", requests=edit.requests, patches=(louder,), hparams={})
    (other,) = run(lm, [loud], prompt, (5, 6))
    assert other.firing == pytest.approx(one.firing, rel=1e-3)
    at = last_token(prompt, "Space Needle")
    k, own = (
        key_of(lm, patch.site, *q) for q in ((OTHER, "Space Needle"), (QUESTION, "Australia"))
    )
    assert one.firing[at] == pytest.approx(float(k @ own).__abs__() / float(own @ own), rel=5e-2)


def test_an_edit_that_changes_nothing_moves_nothing(lm: Any) -> None:
    edit = edit_of(lm, QUESTION, "Australia")
    (patch,) = edit.patches
    silent = LowRank(patch.site, torch.zeros_like(patch.A), patch.B)
    still = Edit(method="", requests=edit.requests, patches=(silent,), hparams={})
    (found,) = run(lm, [still], lm.prompt(QUESTION, chat=True), (5, 6))
    assert found.moves == 0.0


def test_without_edits_there_is_nothing_to_weigh() -> None:
    lm = shared_lm("llama")
    events, found = finish(influences(lm, [], lm.prompt(QUESTION, chat=True), (5,)))
    assert found == ()
    assert events == []


def test_an_encoder_decoder_has_no_keys_but_probabilities() -> None:
    lm = shared_lm("t5")
    prompt = lm.prompt(QUESTION, chat=True)
    site = lm.site("mlp_out", 0)
    weight = lm.model.get_submodule(site).weight
    patch = LowRank(site, torch.ones(weight.shape[0], 1), torch.ones(1, weight.shape[1]))
    request = Request(prompt=QUESTION, target_new=ANSWER, chat=True)
    edit = Edit(method="", requests=(request,), patches=(patch,), hparams={})
    (found,) = run(lm, [edit], prompt, (5, 6))
    assert found.firing == ()
    assert math.isnan(found.fires)
    assert found.position == -1
    assert found.moves != 0


def test_it_can_be_stopped_between_two_edits() -> None:
    lm = shared_lm("llama")
    edits = [edit_of(lm, QUESTION, "Australia"), edit_of(lm, OTHER, "Space Needle")]
    work = influences(lm, edits, lm.prompt(QUESTION, chat=True), (5, 6))
    seen = [next(work), next(work)]
    assert [(e.done, e.total) for e in seen if isinstance(e, Loading)] == [(0, 2), (1, 2)]
    work.close()
    assert traces(lm.model) == {}
