"""What a model with too many edits is said to suffer from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from engine import alarms
from engine.alarms import NORM, PERPLEXITY, SPECTRAL, spectral_norm, warnings
from engine.arch import weight_of
from engine.evaluate.probes import fluency
from engine.lm import LM
from engine.patches import Dense, LowRank
from engine.quantised import dequantised
from tests.tiny import CAUSAL

from .support import finish, shared_lm


def patch(
    lm: LM, size: float, *, dense: bool = False, rank: int = 1, role: str = "mlp_out"
) -> LowRank | Dense:
    """A patch whose norm is `size` times that of the weight."""
    site = lm.site(role, 0)
    weight = weight_of(lm.model.get_submodule(site), lm.arch)
    seed = torch.Generator().manual_seed(rank)
    A = torch.randn(weight.shape[0], rank, generator=seed)
    B = torch.randn(rank, weight.shape[1], generator=seed)
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
    one = patch(lm, 0.8, dense=dense, rank=16)
    assert warnings(lm, (one,), math.nan) == []
    (said,) = warnings(lm, (one, one), math.nan)  # 1.6 times the weight
    grown = math.sqrt(1 + 1.6**2)
    assert grown > NORM
    size = f"has grown to {grown:.1f} times its norm"
    assert said == f"The weight {one.site} {size}: undo what can go."


def test_patches_that_were_stored_meet_fresh_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lie on the CPU. Tensors without numbers stand for those of a GPU."""
    seen = []

    def norm(patch: LowRank) -> float:
        seen.append((patch.A.device, patch.B.device, patch.rank))
        return 1.0

    monkeypatch.setattr(LowRank, "norm", norm)
    with FakeTensorMode():
        parts = [
            LowRank("a", torch.empty(4, rank, device=place), torch.empty(rank, 6, device=place))
            for rank, place in ((1, "cpu"), (2, "cuda:0"))
        ]
        for device in (torch.device("cuda:0"), torch.device("cpu")):
            assert alarms._norm(parts, device) == 1.0
            assert seen.pop() == (device, device, 3)


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_spectral_norm_is_that_of_the_weight_with_all_its_patches(
    family: str, square: bool
) -> None:
    lm = shared_lm(family, mlp_width=16) if square else shared_lm(family)
    for role in ("mlp_in", "mlp_out", "attn_out"):
        one, two = patch(lm, 1.5, role=role), patch(lm, 1.0, rank=3, role=role)
        dense = patch(lm, 2.0, dense=True, rank=2, role=role)
        module = lm.model.get_submodule(one.site)
        W = weight_of(module, lm.arch)
        for patches in ((), (one,), (one, two), (dense, one, dense)):
            whole = W + sum((p.delta().float() for p in patches), torch.zeros_like(W))
            true = float(torch.linalg.matrix_norm(whole, ord=2))
            assert spectral_norm(module, lm.arch, patches) == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_spectral_norm_of_a_wide_flat_spectrum_is_found_to_a_percent(seed: int) -> None:
    torch.manual_seed(seed)
    module = torch.nn.Linear(600, 300).requires_grad_(False)
    true = float(torch.linalg.matrix_norm(module.weight, ord=2))
    found = spectral_norm(module, shared_lm("llama").arch, ())
    assert 0.99 * true < found < 1.0001 * true


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_one_direction_alarms_long_before_the_norm_has_grown(family: str, dense: bool) -> None:
    lm = shared_lm(family, width=64, mlp_width=96)
    one = patch(lm, 0.6, dense=dense)
    assert math.sqrt(1 + 0.6**2) < NORM
    W = weight_of(lm.model.get_submodule(one.site), lm.arch)
    grown = torch.linalg.matrix_norm(W + one.delta().float(), ord=2)
    size = float(grown / torch.linalg.matrix_norm(W, ord=2))
    assert size > SPECTRAL
    assert warnings(lm, (one,), math.nan) == [
        f"The weight {one.site} has grown to {size:.1f} times its spectral norm: undo what can go."
    ]
    assert warnings(lm, (patch(lm, 0.6, rank=64),), math.nan) == []  # as long, in all directions


def test_the_weight_s_own_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm("llama", width=32)
    asked = []

    def counted(*given: object) -> float:
        asked.append(given[-1])
        return 1.0

    monkeypatch.setattr(alarms, "spectral_norm", counted)
    one = patch(lm, 0.1)
    for _ in range(2):
        assert warnings(lm, (one,), math.nan) == []
    assert asked == [(), [one], [one]]
    lm.kept.clear()


def test_of_a_patch_that_is_no_number_nothing_is_measured() -> None:
    lm = shared_lm("llama")
    broken = LowRank(lm.site("mlp_out", 0), torch.full((16, 1), math.nan), torch.ones(1, 24))
    assert warnings(lm, (broken,), math.nan) == []


@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_of_a_quantised_weight_it_is_that_of_what_it_stands_for(
    family: str, load_in: str, tiny_folder: Callable[..., Path]
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_folder(family, width=64, mlp_width=128)
    _, lm = finish(LM.load(str(folder), dtype="fp32", device="cpu", load_in=load_in))
    module = lm.model.get_submodule(lm.site("mlp_out", 0))
    one = LowRank(lm.site("mlp_out", 0), torch.ones(64, 1), torch.ones(1, 128))
    W = dequantised(module)
    assert W is not None
    for patches in ((), (one,)):
        whole = W.float() + sum((p.A @ p.B for p in patches), torch.zeros(64, 128))
        true = float(torch.linalg.matrix_norm(whole, ord=2))
        assert spectral_norm(module, lm.arch, patches) == pytest.approx(true, rel=1e-2)
    (said,) = warnings(lm, (one,), math.nan)
    assert one.site in said


def test_a_kind_of_weight_that_is_not_known_has_none() -> None:
    module = torch.nn.Linear(2, 2)
    module.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    assert math.isnan(spectral_norm(module, shared_lm("llama").arch, ()))
