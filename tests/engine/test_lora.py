"""LoRA: the rank asked for, the plain model's losses, and a patch that is what was trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.above import example, nll
from engine.arch import weight_of
from engine.errors import BadRequest
from engine.events import EditStep
from engine.lm import LM
from engine.methods import get
from engine.methods.lora import LoraParams, lora
from engine.patches import LowRank
from engine.requests import Request
from tests.tiny import FAMILIES

from .support import finish, shared_lm, state, traces
from .test_above import naive, sharp

FACT = Request(
    prompt="The Space Needle is in the city of", target_new="Paris", target_old="Seattle"
)


def params(**changes: Any) -> LoraParams:
    own = {"layers": (0, 1), "steps": 60, "lr": 0.02, "rank": 2, "stop_loss": 0.5}
    return LoraParams(**(own | changes))


def plain_loss(lm: LM) -> float:
    given = example(lm, lm.statement(FACT.prompt), FACT)
    return float(nll([naive(lm, given)], [given]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_becomes_likely_by_a_patch_of_that_rank(family: str) -> None:
    lm = shared_lm(family)
    weights = state(lm.model)
    with sharp(lm):
        before = plain_loss(lm)
        events, edit = finish(lora(lm, [FACT], params()))
        losses = [event.loss for event in events if isinstance(event, EditStep)]
        assert losses[0] == pytest.approx(before, abs=1e-3)  # A = 0: it begins with the model
        assert losses[-1] < 0.7 * losses[0]
        with lm.active(edit.patches):
            after = plain_loss(lm)
        assert after < 0.7 * before
        if losses[-1] < 0.5:  # it ended with the change that this loss was measured with
            assert after == pytest.approx(losses[-1], abs=1e-3)
        assert plain_loss(lm) == before
    assert [patch.site for patch in edit.patches] == [lm.site("mlp_out", i) for i in (0, 1)]
    for patch in edit.patches:
        assert isinstance(patch, LowRank)
        assert patch.rank == 2
        shape = weight_of(lm.model.get_submodule(patch.site), lm.arch).shape
        assert patch.delta().shape == shape
        assert torch.linalg.matrix_rank(patch.delta().float(), rtol=1e-4) == 2
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "falcon", "t5-gated"])
def test_fast_is_the_plain_loop_on_every_part(family: str) -> None:
    lm = shared_lm(family)
    found = []
    for fast in (True, False):
        hp = params(layers=(1,), parts=("mlp_in", "attn_out", "mlp_out"), steps=4, fast=fast)
        events, edit = finish(lora(lm, [FACT], hp))
        found.append([event.loss for event in events if isinstance(event, EditStep)])
        wanted = [*lm.arch.sites("mlp_in", 1), lm.site("attn_out", 1), lm.site("mlp_out", 1)]
        assert [patch.site for patch in edit.patches] == wanted
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert found[0][-1] < found[0][0]


def test_a_seed_repeats_and_another_does_not() -> None:
    lm = shared_lm("gpt2")
    one, same, other = (
        finish(lora(lm, [FACT], params(steps=3, seed=seed)))[1].patches[0] for seed in (0, 0, 1)
    )
    assert torch.equal(one.delta(), same.delta())
    assert not torch.equal(one.delta(), other.delta())


def test_the_update_is_scaled_by_alpha_over_rank() -> None:
    """With A = 0 at the start α scales what Adam's first step of A, which knows no α, does."""
    lm = shared_lm("gpt2")
    small, large = (
        finish(lora(lm, [FACT], params(steps=1, alpha=alpha)))[1].patches[0] for alpha in (2.0, 8.0)
    )
    assert large.norm() == pytest.approx(4 * small.norm(), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rank": 0}, "'rank' must be"), ({"layers": ()}, "must name"), ({"parts": ()}, "must name")],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**changes)
    with pytest.raises(BadRequest, match="lora needs a fact"):
        finish(lora(shared_lm("gpt2"), [], params()))
    assert get("lora").params_class() is LoraParams
