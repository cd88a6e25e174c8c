"""What facts that were solved together are moved by, fitted together."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from engine import contexts
from engine.arch import weight_of
from engine.edit import Edit
from engine.errors import BadSetting, DivergedLoss
from engine.events import EditStep, Loading
from engine.fitting import EVERY, LEARNT, LENGTH, FitParams, _chosen, fitted
from engine.ledger import Ledger
from engine.lm import LM
from engine.methods.emmet import EmmetParams, emmet
from engine.patches import Dense, LowRank
from engine.requests import Request
from engine.resolve import ResolveParams, renewed, solved_again
from engine.statistics import HELD_OUT
from engine.tokens import Rendered, target_ids
from tests.tiny import CAUSAL

from .support import CORPUS, close_after, finish, shared_lm, state
from .test_patches import random_dense

FACTS = tuple(
    Request(prompt=f"The {name}", subject=subject, target_new=target)
    for name, subject, target in (
        ("capital of Australia", "Australia", "tower"),
        ("writer of Emma", "Emma", "Paris"),
        ("name of London", "London", "capital of Australia"),
    )
)
LAYERS = (0, 1)


@pytest.fixture
def text(tmp_path: Path) -> str:
    """One passage, so that every step draws the same."""
    file = tmp_path / "text.txt"
    file.write_text(CORPUS[1], encoding="utf-8")
    return str(file)


def solved(lm: LM, size: float = 0.3) -> Edit:
    """Of the three facts at two layers: random values and keys."""
    draw = torch.Generator().manual_seed(0)
    n = len(FACTS)
    patches = []
    for layer in LAYERS:
        site = lm.site("mlp_out", layer)
        out, inner = weight_of(lm.model.get_submodule(site), lm.arch).shape
        A = size * torch.randn(out, n, generator=draw)
        B = torch.randn(n, inner, generator=draw) / inner**0.5
        keys = torch.randn(n, 1, inner, generator=draw)
        patches.append(LowRank(site, A, B, keys, A + 1))
    return Edit(method="resolve", requests=FACTS, patches=tuple(patches), hparams={}, numbers={})


def fit(lm: LM, edit: Edit, **fields: Any) -> tuple[list[EditStep], Edit]:
    events, found = finish(fitted(lm, edit, FitParams(**fields)))
    return [event for event in events if isinstance(event, EditStep)], found


def plain(lm: LM, ids: list[int], patches: tuple[LowRank | Dense, ...]) -> torch.Tensor:
    """[t, vocab] log-probabilities of what comes next."""
    with torch.no_grad(), lm.active(patches):
        return lm.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def asked(lm: LM, texts: Sequence[str]) -> list[tuple[Rendered, Request]]:
    """Each fact's prompt, bare and behind each text that does not name its subject."""
    found = []
    for fact in FACTS:
        behind = [f"{text}. " for text in texts if str(fact.subject) not in text]
        found += [(lm.prompt(t + fact.prompt, chat=False), fact) for t in ("", *behind)]
    return found


@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_loss_is_that_of_the_plain_model(family: str, behind: int, text: str) -> None:
    lm = shared_lm(family)
    edit = solved(lm)
    steps, _ = fit(lm, edit, fit=1, fit_contexts=behind, text=text, text_weight=2.0)
    short = []
    _, texts = finish(contexts.contexts(lm, behind, 0))
    for prompt, request in asked(lm, texts):
        target = target_ids(lm.tokenizer, prompt, request.target_new)
        log_p = plain(lm, [*prompt.ids, *target], edit.patches)
        at = range(len(prompt.ids) - 1, len(prompt.ids) + len(target) - 1)
        found = [float(log_p[t, y]) for t, y in zip(at, target, strict=True)]
        lacks = [max(0.0, math.log(LEARNT) - x) for x in found]
        short.append(sum(lacks) / len(lacks))
    ids = list(lm.statement(CORPUS[1]).ids[:LENGTH])
    both = [plain(lm, ids, patches)[EVERY - 1 :: EVERY] for patches in ((), edit.patches)]
    kl = functional.kl_div(both[1], both[0], reduction="batchmean", log_target=True)
    facts = sum(short) / len(short)
    assert len(short) > 3 or not behind
    assert steps[0].parts["facts"] == pytest.approx(facts, rel=1e-3)
    assert steps[0].parts["kl"] == pytest.approx(2 * float(kl), rel=1e-2, abs=1e-5)
    assert steps[0].loss == pytest.approx(facts + 2 * float(kl), rel=1e-3)


def test_text_is_to_stay_what_it_is_to_the_model_without_any_edit(text: str) -> None:
    lm = shared_lm("llama")
    edit, beside = solved(lm), random_dense(lm)
    with lm.active([beside]):
        steps, _ = fit(lm, edit, fit=1, text=text)
    ids = list(lm.statement(CORPUS[1]).ids[:LENGTH])
    bare, now = (plain(lm, ids, patches) for patches in ((), (beside, *edit.patches)))
    kl = (bare.exp() * (bare - now)).sum(-1)[EVERY - 1 :: EVERY].mean()
    assert steps[0].parts["kl"] == pytest.approx(float(kl), rel=1e-3)


def test_facts_become_likelier_and_text_counts(text: str) -> None:
    lm = shared_lm("llama")
    before = state(lm.model)
    facts = [dataclasses.replace(fact, target_new="capital") for fact in FACTS]
    own = EmmetParams(
        layer=0, contexts=1, steps=3, relative_lr=1.0, clamp=50.0, text=text, tokens=10_000
    )
    _, edit = finish(emmet(lm, facts, own))
    ended, began = {}, math.inf
    for weight in (0.0, 30.0):
        steps, found = fit(lm, edit, fit=100, fit_lr=0.5, text=text, text_weight=weight)
        assert [step.step for step in steps] == list(range(1, 101))
        again, _ = fit(lm, found, fit=1, text=text)
        ended[weight] = again[0].parts
        began = steps[0].parts["facts"]
        assert found.numbers["fit"] == [step.loss for step in steps]
    assert ended[0.0]["facts"] < 0.5 * began
    assert ended[0.0]["facts"] < ended[30.0]["facts"] < began
    assert ended[30.0]["kl"] < 0.5 * ended[0.0]["kl"]
    assert state(lm.model) == before


def test_it_asks_for_what_it_came_to(text: str) -> None:
    """Solved again as it was solved before, a fitted edit stays as it is."""
    lm = shared_lm("llama")
    hp = ResolveParams(ridge=0.5, text=text, tokens=10_000, weight=1.0)
    _, edit = finish(solved_again(lm, [solved(lm)], hp))
    _, found = fit(lm, edit, fit=20, fit_lr=0.1, text=text)
    _, again = finish(solved_again(lm, [found], hp))
    for old, new, same in zip(edit.patches, found.patches, again.patches, strict=True):
        assert isinstance(new, LowRank)
        assert (new.delta() - old.delta()).norm() > 0.1 * old.delta().norm()
        torch.testing.assert_close(same.delta(), new.delta(), rtol=1e-4, atol=1e-5)


def test_patches_beside_it_act_and_stay(text: str) -> None:
    lm = shared_lm("llama")
    edit, site = solved(lm), lm.site("mlp_out", LAYERS[-1])
    draw = torch.Generator().manual_seed(1)
    shape = weight_of(lm.model.get_submodule(site), lm.arch).shape
    other = dataclasses.replace(
        solved(lm), patches=(Dense(site, torch.randn(shape, generator=draw)),)
    )
    hp = ResolveParams(fit=3, text=text, tokens=10_000, weight=1.0)
    _, found = finish(renewed(lm, Ledger((edit, other)), [edit], None, hp))
    _, solved_only = finish(solved_again(lm, [edit], hp, other.patches))
    assert found.supersedes == (edit.id,)
    for new, old in zip(found.patches, solved_only.patches, strict=True):
        assert isinstance(new, LowRank)
        assert isinstance(old, LowRank)
        assert new.moves is not None
        assert old.moves is not None
        assert not torch.equal(new.A, old.A)
        torch.testing.assert_close(new.moves - new.A, old.moves - old.A)
    with lm.active(other.patches):
        expected, _ = fit(lm, solved_only, fit=1, text=text)
    alone, _ = fit(lm, solved_only, fit=1, text=text)
    losses = found.numbers["fit"]
    assert isinstance(losses, list)
    assert losses[0] == pytest.approx(expected[0].loss) != pytest.approx(alone[0].loss)


def test_many_facts_take_turns_and_those_that_lack_go_first(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    lm = shared_lm("llama")
    monkeypatch.setattr("engine.fitting.FACTS", 2)
    events, _ = finish(fitted(lm, solved(lm), FitParams(fit=8, fit_lr=0.1, text=text)))
    told = [event for event in events if isinstance(event, Loading) and event.stage == "probes"]
    assert [(event.done, event.total) for event in told] == [(2, 3), (3, 3)]
    spoken = dataclasses.replace(FACTS[0], chat=True, history=(("Hi", "Hello"),))
    edit = dataclasses.replace(solved(lm), requests=(spoken, *FACTS[1:]))
    events, _ = finish(fitted(shared_lm("llama", chat=True), edit, FitParams(fit=1, text=text)))
    assert {e.total for e in events if isinstance(e, Loading) and e.stage == "probes"} == {4}
    sampler = random.Random(0)
    batches = [_chosen({0: 0.0, 1: 1.0, 2: 0.0}, sampler) for _ in range(20)]
    assert all(len(set(batch)) == 2 and batch[0] == 1 for batch in batches)
    assert {batch[1] for batch in batches} == {0, 2}


def test_a_run_that_is_cancelled_or_diverges_leaves_the_model_as_it_was(text: str) -> None:
    lm = shared_lm("llama")
    before, edit = state(lm.model), solved(lm)
    for count in (1, 3, 6):
        close_after(fitted(lm, edit, FitParams(fit=9, text=text)), count)
    with pytest.raises(DivergedLoss, match="the model is as it was") as raised:
        fit(lm, edit, fit=30, fit_lr=math.inf, text=text)
    assert "--hp fit_lr=" in raised.value.remedy
    assert state(lm.model) == before
    for new, old in zip(edit.patches, solved(lm).patches, strict=True):
        assert torch.equal(new.delta(), old.delta())


def test_the_end_of_a_text_is_left_to_benchmarks(tmp_path: Path) -> None:
    lm = shared_lm("llama")
    losses = []
    for end in (CORPUS[1], CORPUS[4]):
        file = tmp_path / f"{len(losses)}.txt"
        file.write_text("\n".join([CORPUS[0], *[end] * HELD_OUT]), encoding="utf-8")
        losses.append(fit(lm, solved(lm), fit=2, text=str(file))[0][-1].loss)
    assert losses[0] == losses[1]


def test_what_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a", encoding="utf-8")
    with pytest.raises(BadSetting, match="three tokens"):
        fit(shared_lm("llama"), solved(shared_lm("llama")), fit=2, text=str(file))
    with pytest.raises(BadSetting, match="encoder-decoder"):
        fit(shared_lm("t5"), solved(shared_lm("llama")), fit=2, text=str(file))
    for fields in ({"fit": -1}, {"fit_contexts": -1}, {"text_weight": -1.0}, {"fit_lr": 0.0}):
        with pytest.raises(ValueError, match="must"):
            FitParams(**fields)
