"""What ordinary text feels of a change, and values that are sought where it feels little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import contexts, fisher, hooks, statistics
from engine.errors import BadSetting
from engine.events import Loading
from engine.lm import LM
from engine.methods.memit import MemitParams
from engine.methods.rome import RomeParams
from engine.patches import LowRank
from engine.requests import Request
from engine.rerun import Place
from engine.values import optimise_values
from tests.tiny import CAUSAL

from .support import CORPUS, close_after, finish, shared_lm, traces

FACT = Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(statistics, "cache", lambda: tmp_path / "cache")


def measured(lm: LM, at: str = "block", layer: int = 0, times: int = 1) -> Tensor:
    sites = [lm.site(role, layer) for role in at.split("+")]
    return finish(fisher._measured(lm, sites, CORPUS * times))[1]


@torch.no_grad()
def felt(lm: LM, site: str, change: Tensor) -> float:
    """Mean over positions of KL(p ‖ p with `change` at that position), summed over what follows."""
    total, count = 0.0, 0
    for passage in CORPUS:
        ids, mask = lm.pack([lm.statement(passage).ids[: fisher.LENGTH]])
        before = lm.forward(ids, mask).logits.double().log_softmax(-1)
        for place in range(1, ids.shape[1]):
            here = torch.zeros(ids.shape[1], 1)
            here[place] = 1
            with hooks.patched(lm.model, {site: lambda _, y, here=here: y + here * change}):
                after = lm.forward(ids, mask).logits.double().log_softmax(-1)
            total += float((before.exp() * (before - after)).sum())
            count += 1
    return total / count


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj", "gemma3_text"])
def test_half_the_quadratic_form_is_what_text_feels(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KL(p ‖ p_δ) = ½ δᵀFδ + O(δ³), along the directions that it feels most and least."""
    monkeypatch.setattr(fisher, "PER_DIMENSION", 10**6)
    lm = shared_lm(family)
    F = measured(lm, times=40)  # draws average out
    values, vectors = torch.linalg.eigh(F.double())
    for way in (vectors[:, -1], vectors[:, len(values) // 2], vectors.sum(1)):
        size = 0.02 / float(way @ F.double() @ way) ** 0.5
        change = size * way.float()
        expected = 0.5 * float(change @ F @ change)
        assert felt(lm, lm.site("block", 0), change) == pytest.approx(expected, rel=0.25)
    assert values[-1] > 1.5 * values[len(values) // 2]  # directions do differ


def test_the_inverse_root_rounds_the_ball() -> None:
    root = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    F = root @ root.T * 7
    P = fisher.inverse_root(F, ridge=0.2)
    assert torch.allclose(P, P.T, atol=1e-6)
    assert float((P @ P).trace()) == pytest.approx(8, rel=1e-5)
    back = P @ (F / F.trace() * 8 + 0.2 * torch.eye(8)) @ P
    assert torch.allclose(back, torch.eye(8) * back[0, 0], atol=1e-4)
    assert torch.allclose(fisher.inverse_root(torch.eye(8)), torch.eye(8), atol=1e-6)


@pytest.mark.parametrize("family", CAUSAL)
def test_it_is_measured_once_and_kept(
    family: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm(family)
    before = traces(lm.model)
    lm.kept.clear()
    events, P = finish(fisher.preconditioner(lm, Place([0], "block"), text=text))
    assert [e.stage for e in events if isinstance(e, Loading)]
    assert P.shape == (lm.width, lm.width)
    assert traces(lm.model) == before
    lm.kept.clear()
    monkeypatch.setattr(fisher, "_gradients", lambda *_: pytest.fail("measured again"))
    assert torch.equal(finish(fisher.preconditioner(lm, Place([0], "block"), text=text))[1], P)


def test_two_modules_have_one_metric(text: str) -> None:
    lm = shared_lm("llama")
    lm.kept.clear()
    _, P = finish(fisher.preconditioner(lm, Place([1], "attn_out+mlp_out"), text=text))
    assert P.shape == (2 * lm.width, 2 * lm.width)
    # both are added to the same stream
    F = measured(lm, "attn_out+mlp_out", 1)
    assert torch.allclose(F[lm.width :, lm.width :], measured(lm, "block", 1), rtol=1e-3, atol=1e-9)


def test_the_model_is_the_unedited_one() -> None:
    lm = shared_lm("llama")
    plain = measured(lm)
    d_ff = lm.arch.mlp_width
    patch = LowRank(lm.site("mlp_out", 1), torch.ones(lm.width, 1), torch.ones(1, d_ff))
    with lm.active([patch]):
        assert torch.equal(measured(lm), plain)


def test_closed_in_the_middle_it_leaves_nothing(text: str) -> None:
    lm = shared_lm("gpt2")
    before = traces(lm.model)
    lm.kept.clear()
    close_after(fisher.preconditioner(lm, Place([0], "block"), text=text), 1)
    assert traces(lm.model) == before
    assert not lm.kept


@pytest.mark.parametrize(
    ("params", "own"), [(RomeParams, {"layer": 0}), (MemitParams, {"first": 0, "last": 0})]
)
def test_values_hide_where_text_feels_little(params: Any, own: dict[str, int], text: str) -> None:
    lm = shared_lm("llama")
    prompts = [contexts.prompts(lm, FACT, ())]

    def sought(**changes: Any) -> Any:
        hp = params(**own, text=text, steps=12, relative_lr=0.5, clamp=0.8, stop_loss=0, **changes)
        _, values = finish(optimise_values(lm, [FACT], prompts, hp))
        return values[0], hp

    plain, hp = sought()
    shaped, _ = sought(fisher=True)
    F = measured(lm, hp.place(lm).at)
    harm = [float(v.delta @ F @ v.delta) for v in (plain, shaped)]
    assert harm[1] < 0.8 * harm[0]
    assert shaped.p_new > 0.5 * plain.p_new > 0
    _, P = finish(fisher.preconditioner(lm, hp.place(lm), text=text))
    u = torch.linalg.solve(P, shaped.delta)
    assert float(u.norm()) <= 0.8 * shaped.norm0 * 1.001
    assert float(shaped.delta.norm()) != pytest.approx(float(u.norm()), rel=1e-3)


def test_an_encoder_decoder_has_none(text: str) -> None:
    lm = shared_lm("t5")
    with pytest.raises(BadSetting, match="encoder-decoder"):
        finish(fisher.preconditioner(lm, Place([0]), text=text))


def test_a_text_of_single_tokens_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "LENGTH", 1)
    lm = shared_lm("gpt2")
    with pytest.raises(BadSetting, match="two tokens"):
        finish(fisher.preconditioner(lm, Place([0], "block"), text=text))
