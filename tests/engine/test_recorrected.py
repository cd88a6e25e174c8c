"""A fact of a batch that is corrected again: its own key is no longer held in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import contexts, statistics
from engine.bench.once import hparams
from engine.correct import beneath
from engine.edit import Edit
from engine.ledger import Ledger
from engine.methods import get
from engine.patches import LowRank
from engine.requests import Request
from tests.tiny import CAUSAL

from .support import CORPUS, finish, shared_lm

FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris"),
    Request(prompt="Emma lives in", subject="Emma", target_new="a very old tower"),
)
AGAIN = Request(prompt="Emma lives in", subject="Emma", target_new="Bern")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    monkeypatch.setattr(statistics, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(contexts, "cache", lambda: tmp_path / "cache")
    (tmp_path / "text.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    text = str(tmp_path / "text.txt")
    return {"steps": "3", "contexts": "2", "text": text, "tokens": "400", "first": "0", "last": "0"}


def received(edit: Edit) -> float:
    """How much of its residual the key of the edit's only fact receives."""
    (patch,) = edit.patches
    assert isinstance(patch, LowRank)
    assert patch.keys is not None
    return float(patch.keys[0, 0] @ patch.B[0])


@pytest.mark.parametrize("method", ["memit", "pmet", "alphaedit"])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_new_answer_does_not_pull_against_the_old_one(
    method: str, family: str, given: dict[str, str]
) -> None:
    lm = shared_lm(family)
    run, hp = get(method).run(), hparams(lm, method, given | {"relative_weight": "0.001"})
    _, batch = finish(run(lm, FACTS, hp))
    ledger = Ledger([batch])
    rivals, patches = beneath(ledger, [AGAIN])
    assert not rivals  # the batch answers something else too
    for kept, own in zip(patches, batch.patches, strict=True):
        assert isinstance(kept, LowRank)
        assert isinstance(own, LowRank)
        assert kept.keys is not None
        assert own.keys is not None
        assert torch.equal(kept.A @ kept.B, own.A @ own.B)  # it acts as it did
        assert torch.equal(kept.keys[0], own.keys[0])  # and holds the other fact
    shares = []
    for below in (ledger.patches(), patches):
        with lm.active(below):
            shares.append(received(finish(run(lm, [AGAIN], hp))[1]))
    held, released = shares
    assert held < 0.6
    assert released > 0.9


def test_an_edit_of_nothing_else_is_superseded(given: dict[str, str]) -> None:
    lm = shared_lm("llama")
    run, hp = get("memit").run(), hparams(lm, "memit", given)
    (first, other), ledger = (finish(run(lm, [fact], hp))[1] for fact in FACTS), Ledger()
    ledger.apply(first)
    ledger.apply(other)
    rivals, patches = beneath(ledger, [AGAIN])
    assert rivals == (other,)
    assert patches == first.patches
