"""Values rescaled to the length that they have on the unedited model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import contexts, norm_anchor, statistics
from engine.bench.once import hparams
from engine.errors import BadSetting, EditFailed
from engine.events import Note
from engine.lm import LM
from engine.methods import get
from engine.methods.alphaedit import AlphaEditParams
from engine.methods.pmet import PmetParams
from engine.methods.rome import RomeParams
from engine.patches import LowRank
from engine.requests import Request
from engine.values import Value, ValueParams, optimise_values

from .support import CORPUS, close_after, finish, shared_lm, state, traces

FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris"),
    Request(prompt="Emma lives in", subject="Emma", target_new="a very old tower"),
)
TEXTS = ("The old tower", "Because the people")
FEW = {"steps": 3, "contexts": 2, "relative_lr": 1.0, "lr": None}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(norm_anchor, "kept_at", lambda _lm, name: tmp_path / name)
    monkeypatch.setattr(norm_anchor, "SAMPLES", 4)


def own(family: str) -> LM:
    """A model of its own memory: what was measured before is forgotten."""
    lm = shared_lm(family)
    for name in [name for name in lm.kept if name.startswith("norm-")]:
        del lm.kept[name]
    return lm


def params(**changes: Any) -> AlphaEditParams:
    return AlphaEditParams(**{"first": 0, "last": 1, **FEW, **changes})


def sought(lm: LM, requests: tuple[Request, ...], hp: ValueParams) -> list[Value]:
    prompts = [contexts.prompts(lm, request, TEXTS) for request in requests]
    return finish(optimise_values(lm, requests, prompts, hp))[1]


def value(lm: LM, found: Value, hp: ValueParams) -> torch.Tensor:
    """v*: W k + b and the MLP's part of δ."""
    mlp = lm.model.get_submodule(lm.site("mlp_out", hp.place(lm).layers[-1]))
    with torch.no_grad():
        m = mlp(found.keys[:1])[0]
    return m + found.delta[-len(m) :]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
@pytest.mark.parametrize(
    "hp",
    [params(), RomeParams(layer=0, **FEW), PmetParams(first=0, last=1, **FEW)],
    ids=["alphaedit", "rome", "pmet"],
)
def test_every_value_is_as_long_as_the_samples_are(family: str, hp: ValueParams) -> None:
    lm = own(family)
    found = sought(lm, FACTS, hp)
    samples = norm_anchor.samples(chat=False)
    assert len(samples) == 4
    lengths = [value(lm, v, hp).norm() for v in sought(lm, tuple(samples), hp)]
    _, anchored = finish(norm_anchor.anchored(lm, FACTS, TEXTS, found, hp))
    for before, after in zip(found, anchored, strict=True):
        was, now = value(lm, before, hp), value(lm, after, hp)
        assert float(now.norm()) == pytest.approx(float(torch.stack(lengths).mean()), rel=1e-5)
        assert float(torch.cosine_similarity(was, now, dim=0)) == pytest.approx(1, abs=1e-5)
        assert torch.equal(after.keys, before.keys)


def test_the_longest_twentieth_does_not_count() -> None:
    norms = torch.tensor([*[1.0] * 10, *[3.0] * 9, 1000.0])
    assert norm_anchor.trimmed(norms) == pytest.approx(37 / 19)
    assert norm_anchor.trimmed(norms[:19]) == pytest.approx(37 / 19)  # too few to leave one out


def test_it_is_measured_on_the_unedited_model_and_kept(tmp_path: Path) -> None:
    lm, hp = own("llama"), params()
    _, bare = finish(norm_anchor.reference(lm, TEXTS, hp, chat=False))
    site = lm.site("mlp_out", 1)
    edit = LowRank(site, 0.05 * torch.ones(lm.width, 1), torch.ones(1, lm.arch.mlp_width))
    with lm.active([edit]):
        found = sought(lm, FACTS, hp)
        lm.kept.clear()
        events, again = finish(norm_anchor.reference(lm, TEXTS, hp, chat=False))
        assert not events  # from the disk
        for file in tmp_path.iterdir():
            file.unlink()
        lm.kept.clear()
        events, measured = finish(norm_anchor.reference(lm, TEXTS, hp, chat=False))
        assert events
        assert again == bare
        assert measured == pytest.approx(bare, rel=1e-6)
        _, anchored = finish(norm_anchor.anchored(lm, FACTS, TEXTS, found, hp))
        for after in anchored:
            # what the patch adds to the MLP's output counts in m
            assert float(value(lm, after, hp).norm()) == pytest.approx(bare, rel=1e-5)


def test_other_settings_have_another_length() -> None:
    lm = own("llama")
    lengths = {
        finish(norm_anchor.reference(lm, TEXTS, params(clamp=clamp), chat=False))[1]
        for clamp in (0.5, 4.0)
    }
    assert len(lengths) == 2


def test_values_twice_as_long_are_not_written() -> None:
    lm, hp = own("llama"), params()
    short, long = sought(lm, FACTS, hp)
    _, norm = finish(norm_anchor.reference(lm, TEXTS, hp, chat=False))
    long = dataclasses.replace(long, delta=long.delta * (2.5 * norm / long.delta.norm()))
    assert value(lm, long, hp).norm() > 2 * norm
    events, (kept, left) = finish(norm_anchor.anchored(lm, FACTS, TEXTS, [short, long], hp))
    assert bool(kept.delta.any())
    assert not bool(left.delta.any())
    (note,) = (event.text for event in events if isinstance(event, Note))
    assert note.startswith("'Emma lives in' is not written")
    with pytest.raises(EditFailed, match="leave out norm_anchor, or undo some"):
        finish(norm_anchor.anchored(lm, FACTS[1:], TEXTS, [long], hp))


def test_where_a_norm_follows_the_mlp_it_is_refused() -> None:
    lm, hp = own("gemma3_text"), params()
    with pytest.raises(BadSetting, match="a norm follows"):
        finish(norm_anchor.anchored(lm, FACTS, TEXTS, sought(lm, FACTS, hp), hp))


def test_a_cancel_while_it_is_measured_leaves_nothing() -> None:
    lm = own("llama")
    before, hooked = state(lm.model), traces(lm.model)
    for count in (1, 2, 3):
        close_after(norm_anchor.reference(lm, TEXTS, params(), chat=True), count)
        assert not lm._bare
        assert (state(lm.model), traces(lm.model)) == (before, hooked)
    assert not [name for name in lm.kept if name.startswith("norm-")]


@pytest.mark.parametrize("method", ["alphaedit", "memit", "emmet", "r-rome"])
def test_the_methods_ask_for_anchored_values(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = own("llama")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CORPUS), encoding="utf-8")
    monkeypatch.setattr(statistics, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(contexts, "cache", lambda: tmp_path / "cache")
    given = {"steps": "3", "contexts": "2", "text": str(text), "tokens": "400"}
    lengths = []
    for anchor in ("false", "true"):
        hp = hparams(lm, method, given | {"norm_anchor": anchor})
        _, edit = finish(get(method).run()(lm, FACTS[:1], hp))
        lengths.append(edit.numbers["delta_norm"])
    assert lengths[0] != pytest.approx(lengths[1], rel=1e-3)
