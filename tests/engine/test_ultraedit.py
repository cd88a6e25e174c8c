"""UltraEdit: its closed form, its statistics for life, and where they are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import hooks
from engine.above import Above, Example, example, nll, placed
from engine.edit import Edit
from engine.errors import BadRequest, DivergedLoss
from engine.events import Finding
from engine.lm import LM
from engine.methods import get
from engine.methods.ultraedit import UltraEditParams, ultraedit
from engine.requests import Request
from engine.running import Running, felt, of_text
from tests.tiny import FAMILIES

from .support import CORPUS, finish, shared_lm, state, traces
from .test_above import naive
from .test_patches import random_dense

FACTS = (
    Request(prompt="The Space Needle is in the city of", target_new="Paris", target_old="Seattle"),
    Request(prompt="Who wrote Emma?", target_new="The president of São Paulo"),
)


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LLM_EDIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(file)


def params(text: str, **changes: Any) -> UltraEditParams:
    return UltraEditParams(**({"down": (0, 1), "lr": 1e-3, "text": text, "passages": 5} | changes))


def rows_of(lm: LM, site: str, examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Inputs and gradients where the targets' tokens are predicted, by autograd, one at a time."""
    inputs, gradients = [], []
    for given in examples:
        probe: list[Tensor] = []

        def add(x: Tensor, y: Tensor, probe: list[Tensor] = probe) -> Tensor:
            probe += [x.detach(), torch.zeros_like(y, requires_grad=True)]
            return y + probe[1]

        with hooks.patched(lm.model, {site: add}):
            loss = nll([naive(lm, given)], [given])[0]
        (gradient,) = torch.autograd.grad(loss, probe[1])
        at = list(given.wanted)
        inputs.append(probe[0].reshape(len(given.fed), -1)[at])
        gradients.append(gradient.reshape(len(given.fed), -1)[at])
    return torch.cat(inputs), torch.cat(gradients)


def posed(lm: LM) -> list[Example]:
    return [example(lm, lm.statement(fact.prompt), fact) for fact in FACTS]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_update_is_the_closed_form(family: str, text: str) -> None:
    """Δᵀ = (HᵀH + ρI)⁻¹HᵀV in float64, by the primal system that the dual stands for."""
    lm = shared_lm(family)
    weights = state(lm.model)
    hp = params(text, ridge=3.0)
    _, edit = finish(ultraedit(lm, FACTS, hp))
    _, begun = finish(of_text(lm, [p.site for p in edit.patches], 0, text=text, passages=5))
    for patch in edit.patches:
        H, G = (x.double() for x in rows_of(lm, patch.site, posed(lm)))
        own, before = torch.cat([H, G], dim=1), begun[patch.site]
        count = before.count + len(own)
        mean = (before.count * before.mean.double() + own.sum(0)) / count
        squares = before.spread.double() + before.count * before.mean.double().square()
        variance = (squares + own.square().sum(0)) / count - mean.square()
        normal = ((own - mean) / variance.sqrt()).masked_fill(variance < 1e-20, 0.0)
        h, g = normal[:, : H.shape[1]], normal[:, H.shape[1] :]
        V = -hp.lr * h.square().sum(1, keepdim=True) * g
        wanted = torch.linalg.solve(H.T @ H + 3 * torch.eye(H.shape[1]), H.T @ V).T
        # A direction that no text varied in is of rounding alone: it may go either way.
        off = (patch.delta() - wanted).norm() / wanted.norm()
        assert off < 1e-2, (family, patch.site)
        assert patch.rank == len(H)
    assert state(lm.model) == weights
    assert traces(lm.model) == {}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "t5"])
def test_the_target_becomes_likelier(family: str, text: str) -> None:
    lm = shared_lm(family)
    given = posed(lm)
    above = Above(lm, given, 0, fast=False)

    def losses() -> Tensor:
        with torch.no_grad():
            return nll(above.log_p(), given)

    before = losses()
    _, edit = finish(ultraedit(lm, FACTS, params(text)))
    with lm.active(edit.patches):
        assert (losses() < before).all()
    assert torch.equal(losses(), before)


def test_gates_and_ups(text: str) -> None:
    lm = shared_lm("llama")
    _, edit = finish(ultraedit(lm, FACTS, params(text, gate=(0,), up=(1,), down=())))
    gate, up = lm.arch.sites("mlp_in", 0)[0], lm.site("mlp_in", 1)
    assert [patch.site for patch in edit.patches] == [gate, up]
    with pytest.raises(BadRequest, match="gpt2 has no gate projections"):
        finish(ultraedit(shared_lm("gpt2"), FACTS, params(text, gate=(0,))))


# -- statistics ---------------------------------------------------------------------------------


def test_what_is_told_on_the_way(text: str) -> None:
    lm = shared_lm("llama")
    events, edit = finish(ultraedit(lm, FACTS, params(text)))
    (found,) = (e for e in events if isinstance(e, Finding))
    assert [row["label"] for row in found.rows] == [patch.site for patch in edit.patches]
    for row in found.rows:
        _, gradients = rows_of(lm, row["label"], posed(lm))
        assert row["value"] == pytest.approx(float(gradients.norm()), rel=1e-3)
    rows = edit.patches[0].rank
    assert found.text == (
        f"in 2 modules, {rows} rows; normalised by {int(edit.numbers['rows'])} rows"
    )


def test_sums_merge_to_those_of_all_rows() -> None:
    torch.manual_seed(0)
    rows = 100 + torch.randn(17, 4) * torch.tensor([1.0, 10.0, 0.1, 0.0])
    whole = Running.of(rows)
    merged = Running.of(rows[:1]).with_(Running.of(rows[1:6])).with_(Running.of(rows[6:]))
    assert merged.count == whole.count == 17
    assert torch.allclose(merged.mean, rows.mean(0), rtol=1e-5)
    assert torch.allclose(merged.spread / 17, rows.var(0, correction=0), rtol=1e-3, atol=1e-6)
    normal = merged.normalised(rows)
    assert torch.allclose(normal[:, :3].var(0, correction=0), torch.ones(3), rtol=1e-3)
    assert torch.equal(normal[:, 3], torch.zeros(17))  # never varied
    assert Running.of(rows[:1]).normalised(rows[:1]).isfinite().all()  # one row has a variance


def test_they_count_all_active_edits_and_undo_takes_an_edit_out(text: str) -> None:
    lm = shared_lm("llama")
    hp = params(text)
    _, first = finish(ultraedit(lm, FACTS[:1], hp))
    _, fresh = finish(ultraedit(lm, FACTS[1:], hp))
    with lm.active(first.patches):
        _, second = finish(ultraedit(lm, FACTS[1:], hp))
    own = [edit.patches[0].rank for edit in (first, second)]
    assert (
        first.numbers["rows"] + own[1] == second.numbers["rows"] == fresh.numbers["rows"] + own[0]
    )
    _, again = finish(ultraedit(lm, FACTS[1:], hp))  # as if the first had never been
    assert torch.equal(again.patches[0].delta(), fresh.patches[0].delta())


def test_they_are_saved_and_restored_with_the_edit(text: str) -> None:
    lm = shared_lm("gpt2")
    hp = params(text)
    _, first = finish(ultraedit(lm, FACTS[:1], hp))
    described, tensors = first.save()
    loaded = Edit.load(json.loads(json.dumps(described)), tensors)
    found = []
    for edit in (first, loaded):
        with lm.active(edit.patches):
            found.append(finish(ultraedit(lm, FACTS[1:], hp))[1])
    assert found[0].numbers["rows"] == found[1].numbers["rows"]
    for one, other in zip(found[0].patches, found[1].patches, strict=True):
        assert torch.equal(one.delta(), other.delta())


def test_those_of_text_are_measured_once_and_kept(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm("llama")
    site = lm.site("mlp_out", 1)
    events, found = finish(of_text(lm, [site], 1, text=text, passages=5))
    assert len(events) == 1
    given = _examples(lm)
    _, seen, _ = felt(lm, Above(lm, given, 0, fast=False), [site])
    whole = Running.of(torch.cat(seen[site], dim=1))
    assert found[site].count == whole.count == 15
    assert torch.allclose(found[site].mean, whole.mean, atol=1e-5)
    monkeypatch.setattr("engine.running.felt", None)  # not measured again
    _, kept = finish(of_text(lm, [site], 1, text=text, passages=5))
    assert torch.equal(kept[site].mean, found[site].mean)
    assert torch.equal(kept[site].spread, found[site].spread)


def test_those_of_text_are_the_unedited_model_s(text: str) -> None:
    lm = shared_lm("llama")
    site = lm.site("mlp_out", 1)
    whole = torch.cat(rows_of(lm, site, _examples(lm)), dim=1)
    with lm.active([random_dense(lm, layer=0)]):
        _, found = finish(of_text(lm, [site], 1, text=text, passages=5))
    assert torch.allclose(found[site].mean, whole.mean(0), atol=1e-5)
    variance = whole.var(0, correction=0)
    assert torch.allclose(found[site].spread / len(whole), variance, rtol=1e-3, atol=1e-6)


def _examples(lm: LM) -> list[Example]:
    cut = [lm.statement(line).ids[:27] for line in CORPUS]
    return [placed(lm, ids[:-3], ids[-3:]) for ids in cut]


def test_without_text_they_begin_with_the_edit(text: str) -> None:
    lm = shared_lm("llama")
    _, edit = finish(ultraedit(lm, FACTS, params(text, passages=0)))
    assert edit.numbers["rows"] == edit.patches[0].rank


def test_an_update_that_is_not_finite_is_refused(text: str) -> None:
    lm = shared_lm("gpt2")
    with pytest.raises(DivergedLoss, match=r"not finite.*--hp lr="):
        finish(ultraedit(lm, FACTS, params(text, lr=1e39)))
    with pytest.raises(ValueError, match="name no layer"):
        params(text, down=())
    with pytest.raises(BadRequest, match="needs a fact"):
        finish(ultraedit(lm, [], params(text)))


def test_what_is_known_of_it() -> None:
    info = get("ultraedit")
    assert info.params_class() is UltraEditParams
    assert info.batch
    assert not info.needs_subject
    assert "t5" in info.families
