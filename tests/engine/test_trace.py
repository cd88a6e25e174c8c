"""Causal tracing against a loop that runs whole sequences with one thing put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import hooks
from engine.errors import BadRequest, SubjectNotFound, UnsupportedModel
from engine.lm import LM
from engine.tokens import locate, target_ids, tokens_of
from engine.trace import SITES, Trace, noise_scale, trace, window_around
from tests.tiny import CAUSAL

from .support import close_after, finish, shared_lm, state, traces

TEXT, SUBJECT = "In Seattle the Space Needle is in", "Space Needle"


def run(lm: LM, **more: Any) -> Trace:
    found: Trace = finish(trace(lm, lm.statement(TEXT), SUBJECT, samples=2, **more))[1]
    return found


@torch.no_grad()
def naive(lm: LM, found: Trace) -> tuple[float, float, dict[str, Tensor]]:
    """The same numbers, a run for each, and each restoration written anew."""
    prompt = lm.statement(TEXT)
    noised = tokens_of(prompt, locate(prompt, SUBJECT))
    width = lm.model.get_input_embeddings().weight.shape[1]
    noise = torch.zeros(2, len(prompt.ids), width)
    drawn = torch.randn(2, len(noised), width, generator=torch.Generator().manual_seed(0))
    noise[:, noised.start : noised.stop] = noise_scale(lm) * drawn
    one = torch.tensor([prompt.ids])
    (token,) = (int(lm.model(one).logits[0, -1].argmax()),)

    def p(changes: dict[str, hooks.Change], rows: int) -> Tensor:
        with hooks.patched(lm.model, changes):
            return lm.model(one.expand(rows, -1)).logits[:, -1].softmax(-1)[:, token]

    corrupt: dict[str, hooks.Change] = {lm.site("embed", 0): lambda _x, y: y + noise}
    corrupted = float(p(corrupt, 2).mean())
    effects = {}
    for kind, role in SITES.items():
        table = torch.zeros(len(prompt.ids), lm.n_layers)
        clean = []
        for i in range(lm.n_layers):
            with hooks.capture(lm.model, lm.site(role, i)) as seen:
                lm.model(one)
            clean.append(seen[lm.site(role, i)].reshape(len(prompt.ids), -1))
        for t in range(len(prompt.ids)):
            for layer in range(lm.n_layers):
                width = 1 if kind == "state" else found.window
                layers = [
                    i
                    for i in range(lm.n_layers)
                    if layer - width // 2 <= i < layer - width // 2 + width
                ]

                def put(i: int, t: int = t, clean: list[Tensor] = clean) -> hooks.Change:
                    def change(_x: Tensor, y: Tensor) -> Tensor:
                        z = y.reshape(2, len(prompt.ids), -1).clone()
                        z[:, t] = clean[i][t]
                        return z.view(y.shape)

                    return change

                restored = {lm.site(role, i): put(i) for i in layers}
                table[t, layer] = float(p(corrupt | restored, 2).mean()) - corrupted
        effects[kind] = table
    return float(p({}, 1)[0]), corrupted, effects


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("family", CAUSAL)
def test_effects_are_those_of_whole_runs(family: str, fast: bool) -> None:
    lm = shared_lm(family, layers=4)
    before = state(lm.model)
    found = run(lm, fast=fast, window=2)
    clean, corrupted, effects = naive(lm, found)
    assert found.clean == pytest.approx(clean, rel=1e-3)
    assert found.corrupted == pytest.approx(corrupted, rel=1e-3)
    for kind, wanted in effects.items():
        got = torch.tensor(found.effects[kind])
        assert got.shape == wanted.shape
        assert float((got - wanted).abs().max()) < 1e-4
    assert (state(lm.model), traces(lm.model)) == (before, {})


def test_what_restoring_must_give() -> None:
    """Behind the last layer the last token's state is the answer; before the subject nothing is
    lost; a subject of one token, restored at the first layer, undoes noise that went no further.
    """
    lm = shared_lm("gpt2", layers=3)
    found = run(lm)
    assert found.total != 0
    state_, mlp = found.effects["state"], found.effects["mlp"]
    assert state_[-1][-1] == pytest.approx(found.total, abs=1e-5)
    first, behind = found.subject
    assert "".join(found.tokens[first:behind]).strip() == SUBJECT
    assert all(value == 0 for row in (*state_[:first], *mlp[:first]) for value in row)
    assert state_[first][0] != 0
    # At the last layer only the last token's state is read any more.
    assert [row[-1] for row in state_[first:-1]] == pytest.approx(
        [0.0] * (len(state_) - 1 - first), abs=1e-6
    )


def test_a_window_is_cut_at_the_ends() -> None:
    assert list(window_around(5, 4, 12)) == [3, 4, 5, 6]
    assert list(window_around(0, 4, 12)) == [0, 1]
    assert list(window_around(11, 5, 12)) == [9, 10, 11]
    assert list(window_around(2, 1, 12)) == [2]
    assert run(shared_lm("gpt2", layers=12), kinds=["mlp"], positions=[5]).window == 2


def test_the_answer_may_be_named_and_positions_chosen() -> None:
    lm = shared_lm("llama")
    found = run(lm, answer="Paris", kinds=["state"], positions=[6, 3])
    token = target_ids(lm.tokenizer, lm.statement(TEXT), "Paris")[0]
    assert found.answer == lm.tokenizer.decode([token])
    whole = run(lm, answer="Paris", kinds=["state"]).effects["state"]
    assert found.effects == {"state": (whole[6], whole[3])}


def test_a_seed_repeats_and_another_draws_anew() -> None:
    lm = shared_lm("gpt2")
    assert run(lm) == run(lm)
    assert run(lm, seed=1).corrupted != run(lm).corrupted


def test_beyond_a_sliding_window() -> None:
    lm = shared_lm("mistral", sliding_window=6)
    assert run(lm).effects == run(lm, fast=False).effects


def test_what_cannot_be_traced() -> None:
    lm = shared_lm("gpt2")
    with pytest.raises(SubjectNotFound):
        finish(trace(lm, lm.statement(TEXT), "Eiffel"))
    with pytest.raises(BadRequest, match="kinds are state, mlp, attention"):
        run(lm, kinds=["mpl"])
    with pytest.raises(UnsupportedModel, match="decoder-only"):
        run(shared_lm("t5"))


def test_cancelling_leaves_nothing() -> None:
    lm = shared_lm("falcon")
    before = state(lm.model)
    for count in (1, 2, 5):
        close_after(trace(lm, lm.statement(TEXT), SUBJECT, samples=2), count)
        assert (state(lm.model), traces(lm.model)) == (before, {})
