"""The closed forms against the equations they solve, on matrices of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.closed_form import resolve, rows, weighted
from engine.errors import EditFailed
from engine.methods.alphaedit import AlphaEditParams, in_null_space
from engine.patches import Dense, LowRank
from engine.statistics import Moment

D, D_FF = 6, 20


def moment() -> Moment:
    seen = torch.randn(400, D_FF, generator=torch.Generator().manual_seed(1)).double()
    seen *= torch.linspace(0.05, 3, D_FF)  # some directions are hardly used
    return Moment.of(seen.T @ seen, len(seen))


def drawn(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a.double() - b.double()).norm()) < tolerance * float(b.double().norm())


@pytest.mark.parametrize("n", [1, 3, 30])
@pytest.mark.parametrize("past", [0, 4, 25])
@pytest.mark.parametrize("anchors", [0, 7])
def test_memit_s_normal_equations(n: int, past: int, anchors: int) -> None:
    """Δ (λC + Σ k_p k_pᵀ + λ(β/m) Σ a aᵀ + KKᵀ) = R Kᵀ (Meng et al. 2023, eq. 14)."""
    C, K, R = moment(), drawn(D_FF, n), drawn(D, n, seed=3)
    P, A, weight, beta = drawn(past, D_FF, seed=4), drawn(anchors, D_FF, seed=5), 7.0, 50.0
    B = rows(K, weighted(C, weight, P, A if anchors else None, beta))
    M = weight * C.C + P.T @ P
    if anchors:
        M = M + weight * beta / anchors * (A.T @ A)
    assert near(R @ B @ (M + K @ K.T), R @ K.T, 1e-3)


@pytest.mark.parametrize("n", [1, 5])
def test_without_a_ridge_every_residual_is_met(n: int) -> None:
    K = drawn(D_FF, n)
    B = rows(K, weighted(moment(), 3.0, torch.empty(0, D_FF)), ridge=0.0)
    assert near(B @ K, torch.eye(n))


def test_of_all_such_updates_it_is_the_smallest_in_the_norm_of_c() -> None:
    C, K = moment(), drawn(D_FF, 2)
    B = rows(K, weighted(C, 1.0, torch.empty(0, D_FF)), ridge=0.0)
    size = float(((B @ C.C) * B).sum())
    for seed in range(5):
        away = drawn(2, D_FF, seed=10 + seed)
        away -= away @ K @ torch.linalg.solve(K.T @ K, K.T)  # leaves BK as it is
        assert near((B + away) @ K, torch.eye(2), 1e-3)
        assert float((((B + away) @ C.C) * (B + away)).sum()) > size


def test_one_key_asked_for_two_values_is_refused_and_a_ridge_allows_it() -> None:
    K = drawn(D_FF, 1).repeat(1, 2)
    solve = weighted(moment(), 1.0, torch.empty(0, D_FF))
    B = rows(K, solve, ridge=1e-2)
    assert near(B @ K, torch.full((2, 2), 0.5), 0.01)  # each moves it half of the way
    for seed in range(20):  # rounding decides nothing
        others = drawn(D_FF, 3, seed=100 + seed)
        noise = 1e-6 * drawn(D_FF, 1, seed=200 + seed)
        with pytest.raises(EditFailed, match="too much alike"):
            rows(torch.cat([K[:, :1], others, K[:, :1] + noise], dim=1), solve, ridge=0.0)


def test_a_system_that_is_not_positive_is_an_edit_that_failed() -> None:
    K = drawn(D_FF, 2)
    for ridge in (0.0, 1e-3):
        with pytest.raises(EditFailed, match="too much alike"):
            rows(K, lambda k: -k, ridge)


@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-3, 1.0])
def test_keys_of_one_fact_may_be_alike(apart: float) -> None:
    """They are to receive the same residual: there is nothing that has to be told apart."""
    K, solve = drawn(D_FF, 3), weighted(moment(), 1.0, torch.empty(0, D_FF))
    K[:, 1] = K[:, 0] + apart * drawn(D_FF, 1, seed=9)[:, 0]
    facts = torch.eye(2)[[0, 0, 1]]
    B = rows(K, solve, 0.0, facts)
    assert near(B @ K, facts.T, 1e-2)
    assert float(B.norm()) < 3 * float(rows(K[:, 1:], solve, 0.0).norm())


@pytest.mark.parametrize("weight", [2.0, None])
@pytest.mark.parametrize("past", [0, 3, 30])
def test_alphaedit_s_update_is_zero_outside_its_null_space(past: int, weight: float | None) -> None:
    """ΔK₀ = 0 for every K₀ in the directions that are kept (Fang et al. 2025, section 3.1)."""
    C, K, R = moment(), drawn(D_FF, 3), drawn(D, 3, seed=3)
    hp = AlphaEditParams(first=0, last=0, rank=0.5, weight=weight, relative_weight=3.0)
    P = drawn(past, D_FF, seed=4)
    update = R @ rows(K, in_null_space(C, hp, P))
    values, vectors = torch.linalg.eigh(C.C)
    kept = vectors[:, D_FF // 2 :]  # what ordinary keys are made of
    assert float((update @ kept).norm()) < 1e-4 * float(update.norm())
    Q = vectors[:, : D_FF // 2]
    N = Q @ Q.T
    ordinary = float((N @ C.C).trace())  # the mean of ‖Qᵀk‖²
    whole = N @ P.T @ P + N @ K @ K.T + (weight or 3 * ordinary) * torch.eye(D_FF)
    assert near(update @ whole.T, R @ K.T @ N, 1e-3)  # eq. 14, transposed: P is symmetric
    assert values[0] < values[-1]


def test_patches_of_a_site_are_solved_again_as_one_system() -> None:
    """Two edits made one after the other; then both residuals, towards W, are met at once."""
    solve = weighted(moment(), 1.0, torch.empty(0, D_FF))
    W = drawn(D, D_FF, seed=6)
    K, V = drawn(3, 2, D_FF, seed=7), drawn(3, D, seed=8)  # three facts with two keys each
    K[:, 1] = K[:, 0]  # the same one, so that W maps both to the same
    patches: list[LowRank] = []
    for fact in range(3):
        now = W + sum((p.A @ p.B for p in patches), torch.zeros(D, D_FF))
        key = K[fact, 0]
        residual = V[fact] - now @ key
        row = rows(key[:, None], solve, ridge=0.0)
        moves = V[fact] - W @ key
        patches.append(LowRank("mlp", residual[:, None], row, K[fact][None], moves[:, None]))
    moved = W + sum(p.A @ p.B for p in patches)
    assert not near(moved @ K[0, 0], V[0], 1e-2)  # the later edits moved the first one
    renewed = resolve(patches, solve, ridge=1e-6)
    again = W + sum(p.A @ p.B for p in renewed)
    assert near(again @ K[:, 0].T, V.T, 1e-2)
    assert [p.rank for p in renewed] == [1, 1, 1]
    # without the first, on top of which the others were made, they still get their values
    rest = W + sum(p.A @ p.B for p in resolve(patches[1:], solve, ridge=1e-6))
    assert near(rest @ K[1:, 0].T, V[1:].T, 1e-2)
    left = W + sum(p.A @ p.B for p in patches[1:])
    assert not near(left @ K[1:, 0].T, V[1:].T, 1e-2)


def test_a_single_patch_resolved_is_itself() -> None:
    solve = weighted(moment(), 1.0, torch.empty(0, D_FF))
    K, R = drawn(D_FF, 2), drawn(D, 2, seed=3)
    patch = LowRank("mlp", R, rows(K, solve), K.T[:, None].contiguous(), R)
    (again,) = resolve([patch], solve)
    assert near(again.A @ again.B, patch.A @ patch.B)


def test_what_goes_on_acting_beside_is_not_asked_for_twice() -> None:
    solve = weighted(moment(), 1.0, torch.empty(0, D_FF))
    W, K, V = drawn(D, D_FF, seed=6), drawn(2, D_FF, seed=7), drawn(2, D, seed=8)
    beside = [Dense("mlp", drawn(D, D_FF, seed=9)), LowRank("mlp", drawn(D, 2), drawn(2, D_FF))]
    patches = [
        LowRank("mlp", drawn(D, 1), drawn(1, D_FF), key[None, None], (v - W @ key)[:, None])
        for key, v in zip(K, V, strict=True)
    ]
    renewed = resolve(patches, solve, 1e-6, beside)
    whole = W + sum((p.delta().float() for p in (*beside, *renewed)), torch.zeros(D, D_FF))
    assert near(whole @ K.T, V.T, 1e-2)
    assert [p.moves for p in renewed] == [p.moves for p in patches], "towards the unedited map"


def test_patches_without_facts_are_solved_again_too() -> None:
    """What is left of an edit none of whose facts is said."""
    empty = LowRank("mlp", torch.empty(D, 0), torch.empty(0, D_FF), torch.empty(0, 2, D_FF),
                    torch.empty(D, 0))  # fmt: skip
    for ridge in (0.0, 0.1):
        solve = weighted(moment(), 1.0, torch.empty(0, D_FF))
        assert [patch.rank for patch in resolve([empty], solve, ridge)] == [0]
