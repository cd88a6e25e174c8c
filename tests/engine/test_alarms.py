"""What a model with too many edits is said to suffer from."""

from __future__ import annotations

import math

import pytest
import torch

from engine.alarms import NORM, PERPLEXITY, warnings
from engine.arch import weight_of
from engine.evaluate.probes import fluency
from engine.lm import LM
from engine.patches import Dense, LowRank

from .support import shared_lm


def patch(lm: LM, size: float, *, dense: bool = False) -> LowRank | Dense:
    """A patch whose norm is `size` times that of the weight."""
    site = lm.site("mlp_out", 0)
    weight = weight_of(lm.model.get_submodule(site), lm.arch)
    A, B = torch.randn(weight.shape[0], 1), torch.randn(1, weight.shape[1])
    scale = size * float(weight.norm()) / LowRank(site, A, B).norm()
    return Dense(site, scale * A @ B) if dense else LowRank(site, scale * A, B)


def test_a_model_that_is_well_has_nothing_said_about_it() -> None:
    lm = shared_lm("llama")
    assert warnings(lm, (), fluency(lm)) == []
    assert warnings(lm, (patch(lm, 0.1),), math.nan) == []


def test_perplexity_is_held_against_the_unedited_model_while_patches_act() -> None:
    lm = shared_lm("gpt2")
    fresh = fluency(lm)
    added = (patch(lm, 0.5),)
    with lm.active(added):
        assert warnings(lm, (), fresh * (PERPLEXITY - 0.01)) == []
        (said,) = warnings(lm, (), fresh * 1.25)
    assert said.startswith("Perplexity is 25 % above")
    assert "resolve" not in said


def test_edits_that_were_solved_one_after_the_other_can_be_solved_again() -> None:
    lm = shared_lm("gpt2")
    plain = patch(lm, 0.5)
    assert isinstance(plain, LowRank)
    keys, moves = plain.B[:, None], plain.A
    solved = LowRank(plain.site, plain.A, plain.B, keys, moves)
    for patches, can in (((solved,), False), ((plain, solved), False), ((solved, solved), True)):
        (said,) = warnings(lm, patches, fluency(lm) * 1.25)[:1]
        assert ("resolve" in said) is can


@pytest.mark.parametrize("dense", [False, True])
def test_growth_is_that_of_the_sum_of_a_site_s_patches(dense: bool) -> None:
    lm = shared_lm("llama")
    one = patch(lm, 0.8, dense=dense)
    assert warnings(lm, (one,), math.nan) == []
    (said,) = warnings(lm, (one, one), math.nan)  # 1.6 times the weight in one direction
    grown = math.sqrt(1 + 1.6**2)
    assert grown > NORM
    assert f"{grown:.1f} times" in said
    assert one.site in said
