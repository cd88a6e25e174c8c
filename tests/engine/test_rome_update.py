"""ROME's and R-ROME's update against its closed form, on every family of decoders."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine import hooks
from engine.arch import weight_of
from engine.errors import EditFailed
from engine.events import EditStep
from engine.methods.rome import direction
from engine.values import Value
from tests.tiny import CAUSAL

from .rome_parts import (
    REQUEST,
    RUNS,
    close,
    keys_and_outputs,
    params,
    probability,
    run,
    value_of,
)
from .support import NEAR, QUESTION, finish, shared_lm, state, traces


@pytest.mark.parametrize("family", CAUSAL)
def test_the_mean_key_is_mapped_to_the_value_exactly(family: str, text: str) -> None:
    """(W + Δ) k̄ + b = v*, every part computed anew."""
    lm = shared_lm(family)
    hp = params(text)
    _, edit = run(lm, hp)
    value = value_of(lm, edit, hp)
    keys, outputs = keys_and_outputs(lm, edit)
    mean = keys.mean(0)
    (patch,) = edit.patches
    module = lm.model.get_submodule(patch.site)
    assert close(module(mean), outputs.mean(0))  # as the mean of outputs is affine in the key
    with lm.active(edit.patches):
        said = module(mean)
    assert close(said, outputs.mean(0) + value.delta)
    assert float(value.delta.norm()) > 0.1


@pytest.mark.parametrize("family", CAUSAL)
def test_the_target_becomes_likely(family: str, text: str) -> None:
    lm = shared_lm(family)
    weights = state(lm.model)
    events, edit = run(lm, params(text, steps=16), NEAR)
    steps = [e for e in events if isinstance(e, EditStep)]
    assert steps[-1].loss < steps[0].loss - 1
    assert steps[-1].p_new > 4 * steps[0].p_new
    before, after = (probability(lm, edit, patched=p) for p in (False, True))
    assert after > 4 * before
    # What was optimised is what the patch does, up to what other tokens feel of it.
    assert 0.3 < after / steps[-1].p_new < 3
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("method", RUNS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_update_is_the_closed_form(family: str, method: str, square: bool, text: str) -> None:
    """Δ = δ (C⁻¹k̄)ᵀ / (kᵀC⁻¹k̄) in float64; k is k̄ for R-ROME, the bare prompt's for ROME."""
    lm = shared_lm(family, mlp_width=16) if square else shared_lm(family)
    hp = params(text)
    _, edit = run(lm, hp, method=method)
    delta = value_of(lm, edit, hp).delta.double()
    keys, _ = (x.double() for x in keys_and_outputs(lm, edit))
    mean = keys.mean(0)
    _, moment = finish(lm.statistics.moment(hp.layer, text=text, tokens=hp.tokens))
    u = torch.linalg.solve(moment.C.double(), mean)
    k = mean if method == "r-rome" else keys[0]
    (patch,) = edit.patches
    found = patch.A.double() @ patch.B.double()
    assert found.shape == weight_of(lm.model.get_submodule(patch.site), lm.arch).shape
    assert patch.rank == 1
    assert close(found, torch.outer(delta, u) / (k @ u), 1e-3)
    assert edit.numbers["denominator"] == pytest.approx(float(k @ u), rel=1e-3)
    assert edit.numbers["delta_norm"] == pytest.approx(float(delta.norm()), rel=1e-4)
    assert edit.numbers["key_norm"] == pytest.approx(float(mean.norm()), rel=1e-4)


def test_rome_and_r_rome_differ_in_which_key_is_exact(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text)
    moved = {}
    for method in RUNS:
        _, edit = run(lm, hp, method=method)
        delta = value_of(lm, edit, hp).delta
        keys, _ = keys_and_outputs(lm, edit)
        (patch,) = edit.patches
        moved[method] = [patch.A @ (patch.B @ k) for k in (keys.mean(0), keys[0])]
    mean, bare = 0, 1
    assert close(moved["r-rome"][mean], delta)
    assert close(moved["rome"][bare], delta)
    assert not close(moved["r-rome"][bare], delta, 1e-2)
    assert not close(moved["rome"][mean], delta, 1e-2)


def test_without_contexts_they_are_one(text: str) -> None:
    lm = shared_lm("gpt2")
    edits = [run(lm, params(text, contexts=0), method=method)[1] for method in RUNS]
    assert torch.equal(edits[0].patches[0].A, edits[1].patches[0].A)
    assert torch.equal(edits[0].patches[0].B, edits[1].patches[0].B)


def test_a_second_edit_is_exact_on_top_of_the_first(text: str) -> None:
    lm = shared_lm("qwen2")
    hp = params(text)
    _, first = run(lm, hp, dataclasses.replace(REQUEST, target_new="London"))
    with lm.active(first.patches):
        _, second = run(lm, hp)
        delta = value_of(lm, second, hp).delta
        keys, outputs = keys_and_outputs(lm, second)
    module = lm.model.get_submodule(second.patches[0].site)
    with lm.active((*first.patches, *second.patches)):
        assert close(module(keys.mean(0)), outputs.mean(0) + delta)


def test_anchors_hold_their_keys_in_place(text: str) -> None:
    """Same δ, still exact at k̄, and other names at the same place feel it less."""
    lm = shared_lm("llama", chat=True)
    hp = params(text)
    _, plain = run(lm, hp, QUESTION)
    _, held = run(lm, dataclasses.replace(hp, anchors=10, anchor_weight=1e4), QUESTION)
    keys, _ = keys_and_outputs(lm, plain)
    moves = []
    for edit in (plain, held):
        (patch,) = edit.patches
        assert close(patch.A @ (patch.B @ keys.mean(0)), plain.patches[0].A[:, 0], 1e-3)
        moves.append(patch)
    other = lm.render("What is the capital of Germany?")
    with hooks.capture(lm.model, plain.patches[0].site, inputs=True, stop=True) as seen:
        lm.model(torch.tensor([other.ids]))
    felt, less = ((seen[p.site][0] @ p.B.T).abs().mean() for p in moves)
    assert less < 0.8 * felt


def test_both_makes_the_bare_prompt_exact_too(text: str) -> None:
    """The smallest update, weighted by C, of all that are exact at the two keys."""
    lm = shared_lm("llama")
    hp = params(text, both=True)
    _, edit = run(lm, hp)
    delta = value_of(lm, edit, hp).delta
    keys, _ = keys_and_outputs(lm, edit)
    (patch,) = edit.patches
    assert patch.rank == 1
    two = (keys[0], keys[1:].mean(0))
    for key in (*two, keys.mean(0)):
        assert close(patch.A @ (patch.B @ key), delta)
    _, moment = finish(lm.statistics.moment(hp.layer, text=text, tokens=hp.tokens))
    C, K = moment.C.double(), torch.stack(two, dim=1).double()
    inverse = torch.linalg.inv(C)
    gram = torch.linalg.inv(K.T @ inverse @ K)
    assert close(patch.B[0].double(), (inverse @ K @ gram).sum(1), 1e-2)
    assert edit.numbers["denominator"] == pytest.approx(1 / float(gram.sum()), rel=1e-2)


@pytest.mark.parametrize("contexts_", [0, 2])
def test_both_is_r_rome_where_the_keys_are_one(contexts_: int) -> None:
    generator = torch.Generator().manual_seed(0)
    key, other = torch.randn(2, 6, generator=generator)
    value = Value(key.expand(contexts_ + 1, -1), other, other, 1.0, (), 0.0)
    (plain, below), (both, also) = (
        direction("r-rome", value, lambda K: 2 * K, both=b) for b in (False, True)
    )
    assert close(both, plain)
    assert below == pytest.approx(2 * float(key @ key), rel=1e-4)
    assert also == pytest.approx(below, rel=1e-3)


@pytest.mark.parametrize("method", RUNS)
def test_a_denominator_that_is_not_positive_is_refused(method: str) -> None:
    """ROME's can be: the bare key and the mean may point apart."""
    keys = torch.tensor([[-1.0, 0.0], [3.0, 0.1]])
    value = Value(keys, torch.ones(3), torch.ones(3), 1.0, (), 0.0)
    if method == "r-rome":
        row, denominator = direction(method, value, lambda K: K, both=False)
        assert denominator > 0
        assert float(row @ keys.mean(0)) == pytest.approx(1)
        return
    with pytest.raises(EditFailed, match=r"the denominator k\*ᵀC⁻¹k\* is .* --method r-rome"):
        direction(method, value, lambda K: K, both=False)
