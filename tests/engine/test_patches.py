"""Patches: `Wx + A(Bx)` is the edited matrix, and taking them off leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine import hooks
from engine.arch import weight_of
from engine.lm import LM
from engine.patches import KINDS, Dense, LowRank, Patch, changes, describe
from tests.tiny import CAUSAL

from .support import shared_lm, state, traces

TEXTS = ("Who wrote Emma?", "The capital of Australia is", "Paris")


def random_patch(lm: LM, layer: int = 1, rank: int = 2, seed: int = 0) -> LowRank:
    site = lm.site("mlp_out", layer)
    out, into = weight_of(lm.model.get_submodule(site), lm.arch).shape
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(out, rank, generator=generator)
    return LowRank(site, A, 0.3 * torch.randn(rank, into, generator=generator))


def random_dense(lm: LM, layer: int = 1, seed: int = 0) -> Dense:
    """Its entries are of all sizes, so that none is lost where a sum rounds."""
    patch = random_patch(lm, layer, rank=1, seed=seed)
    noise = torch.randn(patch.delta().shape, generator=torch.Generator().manual_seed(seed))
    return Dense(patch.site, 0.3 * noise)


def dense(lm: LM, *patches: Patch) -> LM:
    """A copy whose weights were edited, as a merged checkpoint's would be."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for patch in patches:
            weight_of(model.get_submodule(patch.site), lm.arch).add_(patch.delta().float())
    return LM(model, lm.tokenizer, name="dense")


def logits(lm: LM) -> Tensor:
    return lm.logits([lm.statement(text) for text in TEXTS])


# -- the arithmetic -----------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["low-rank", "dense"])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize(("into", "out"), [(5, 3), (4, 4)])
def test_a_patched_module_is_the_dense_one(kind: str, into: int, out: int, of: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(into, out)
    module: nn.Module = linear
    if kind == "conv1d":
        module = Conv1D(out, into)
        module.load_state_dict({"weight": linear.weight.T.clone(), "bias": linear.bias.clone()})
    patch: Patch = LowRank("0", torch.randn(out, 2), torch.randn(2, into))
    if of == "dense":
        patch = Dense("0", torch.randn(out, into))
    x = torch.randn(2, 7, into)
    wanted = x @ (linear.weight + patch.delta().float()).T + linear.bias
    model = nn.Sequential(module)
    with hooks.patched(model, changes([patch], torch.device("cpu"))):
        assert torch.allclose(model(x), wanted, atol=1e-5)
        assert torch.allclose(model(x[0]), wanted[0], atol=1e-5)  # two-dimensional input
    assert not torch.allclose(model(x), wanted, atol=1e-2)


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_patch_equals_editing_the_weight(family: str, square: bool) -> None:
    lm = shared_lm(family, mlp_width=16) if square else shared_lm(family)
    one, two = random_patch(lm), random_patch(lm, rank=1, seed=1)
    other, three = random_dense(lm, layer=0, seed=2), random_dense(lm, seed=3)
    plain = logits(lm)
    with lm.active([one, other, three, two]), torch.no_grad():
        found = logits(lm)
    assert torch.allclose(found, logits(dense(lm, one, two, three, other)), atol=2e-4)
    assert (found - plain).abs().max() > 0.05
    assert torch.equal(logits(lm), plain)
    assert traces(lm.model) == {}


def test_patches_of_a_site_add_up_whatever_their_order() -> None:
    lm = shared_lm("llama")
    one, two = random_patch(lm), random_patch(lm, seed=1)
    both = LowRank(one.site, torch.cat([two.A, one.A], 1), torch.cat([two.B, one.B], 0))
    with lm.active([one, two]):
        found = logits(lm)
    with lm.active([two, one]):
        assert torch.allclose(logits(lm), found, atol=1e-5)
    with lm.active([both]):
        assert torch.allclose(logits(lm), found, atol=1e-5)
    with lm.active([one]), lm.active([two]):  # as when an edit is tried on top of the ledger
        assert torch.allclose(logits(lm), found, atol=1e-5)
    minus = LowRank(one.site, -one.A, one.B)
    with lm.active([one, two, minus, LowRank(one.site, two.A, -two.B)]):
        assert torch.allclose(logits(lm), logits(dense(lm)), atol=1e-5)


def test_dense_patches_of_a_site_add_up_and_are_left_alone() -> None:
    lm = shared_lm("gpt2")
    one, two, low = random_dense(lm), random_dense(lm, seed=1), random_patch(lm)
    kept, wanted = one.matrix.clone(), logits(dense(lm, one, two, low))
    both = Dense(one.site, one.matrix + two.matrix)
    for group in ([one, low, two], [two, one, low], [low, both]):
        with lm.active(group):
            assert torch.allclose(logits(lm), wanted, atol=1e-4)
    assert torch.equal(one.matrix, kept)


# -- precision and undo -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_taking_a_patch_off_is_exact(dtype: torch.dtype) -> None:
    shared = shared_lm("qwen2")
    lm = LM(copy.deepcopy(shared.model).to(dtype), shared.tokenizer, name="copy")
    before, weights = logits(lm), state(lm.model)
    for seed in range(3):
        with lm.active([random_patch(lm, seed=seed), random_dense(lm, seed=seed)]):
            changed = logits(lm)
        assert changed.dtype == dtype
        assert not torch.equal(changed, before)
        assert torch.equal(logits(lm), before)
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


def test_the_update_is_computed_in_float32_and_cast_once() -> None:
    """Two terms that cancel in float32 do not in bfloat16."""
    x = torch.full((1, 2), 1.0, dtype=torch.bfloat16)
    A = torch.tensor([[1.0, -1.0]])
    B = torch.tensor([[256.0, 1.0], [256.0, 0.5]])  # 257 rounds to 256 in bfloat16
    change = changes([LowRank("s", A, B)], torch.device("cpu"))["s"]
    y = change(x, torch.zeros(1, 1, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert float(y) == 0.5


def test_kinds_of_patches_add_up_in_float32() -> None:
    """256.5 and −256 cancel to 0.5; in bfloat16 the first would be 256."""
    x = torch.ones(1, 1, dtype=torch.bfloat16)
    low = LowRank("s", torch.tensor([[256.5]]), torch.ones(1, 1))
    stored = Dense("s", torch.tensor([[-256.0]], dtype=torch.bfloat16))
    change = changes([low, stored], torch.device("cpu"))["s"]
    assert float(change(x, torch.zeros(1, 1, dtype=torch.bfloat16))) == 0.5


def test_a_failing_pass_leaves_nothing() -> None:
    lm = shared_lm("gpt2")
    with pytest.raises(ZeroDivisionError), lm.active([random_patch(lm)]):
        raise ZeroDivisionError
    assert traces(lm.model) == {}


def test_bare_runs_as_if_there_were_no_patches() -> None:
    lm = shared_lm("falcon")
    plain = logits(lm)
    with lm.active([random_patch(lm)]):
        patched = logits(lm)
        with lm.bare():
            assert torch.equal(logits(lm), plain)
            with lm.bare():
                pass
            assert torch.equal(logits(lm), plain)
        assert torch.equal(logits(lm), patched)
        with pytest.raises(ZeroDivisionError), lm.bare():
            raise ZeroDivisionError
        assert torch.equal(logits(lm), patched)
    assert not torch.equal(plain, patched)


# -- descriptions -------------------------------------------------------------------------------


def test_norm_and_description() -> None:
    torch.manual_seed(0)
    patch = LowRank("layer.3", torch.randn(5, 2), torch.randn(2, 7))
    norm = float((patch.A @ patch.B).norm())
    assert patch.norm() == pytest.approx(norm, rel=1e-5)
    assert patch.rank == 2
    assert describe(patch, 4.0) == {
        "site": "layer.3",
        "rank": 2,
        "norm_ratio": pytest.approx(norm / 4, rel=1e-5),
    }
    assert torch.allclose(patch.delta(), (patch.A @ patch.B).double(), atol=1e-6)
    back = KINDS[patch.kind].from_tensors(patch.site, patch.tensors())
    assert torch.equal(back.delta(), patch.delta())


def test_norm_and_description_of_a_dense_one() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(5, 7).to(torch.bfloat16)
    patch = Dense("layer.3", matrix)
    norm = float(matrix.double().norm())
    assert patch.norm() == pytest.approx(norm, rel=1e-5)
    assert describe(patch, 4.0) == {
        "site": "layer.3",
        "rank": 5,
        "norm_ratio": pytest.approx(norm / 4, rel=1e-5),
    }
    back = KINDS[patch.kind].from_tensors(patch.site, patch.tensors())
    assert isinstance(back, Dense)
    assert torch.equal(back.matrix, matrix)
    assert back.matrix.dtype == torch.bfloat16


@pytest.mark.parametrize("matrix", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int)])
def test_what_is_no_matrix_is_refused(matrix: Tensor) -> None:
    with pytest.raises(ValueError, match="is not a matrix"):
        Dense("s", matrix)


@pytest.mark.parametrize(
    ("A", "B"), [((5, 2), (3, 7)), ((5,), (1, 7)), ((5, 1), (7,))], ids=["rank", "A", "B"]
)
def test_matrices_that_do_not_chain_are_refused(A: Any, B: Any) -> None:
    with pytest.raises(ValueError, match="do not chain"):
        LowRank("s", torch.zeros(A), torch.zeros(B))
