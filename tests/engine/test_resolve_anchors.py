"""Other names that edits were held off are held off when they are solved again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from engine import anchors, joint
from engine.lm import LM
from engine.methods.emmet import emmet
from engine.patches import LowRank
from engine.requests import Request
from engine.resolve import ResolveParams, solved_again

from .support import finish, shared_lm
from .test_resolve import FACTS, small


def test_other_names_stay_held_off(text: str) -> None:
    """As when the facts were made: what the same question does to other names becomes less."""
    lm = shared_lm("llama", chat=True)
    facts = [
        Request(prompt="What is the capital of Australia?", subject="Australia", target_new="Bern"),
        Request(prompt="Who leads Japan?", subject="Japan", target_new="Emma"),
    ]
    facts = [dataclasses.replace(fact, chat=True) for fact in facts]
    hp = dataclasses.replace(small(text), anchors=12)
    edits = [finish(emmet(lm, [fact], hp))[1] for fact in facts]
    _, others = finish(anchors.keys(lm, facts, [0], 12))
    moved = {}
    for name, asked in (("held", None), ("free", 0)):
        exactly = ResolveParams(text=text, ridge=0.0, anchors=asked)
        _, edit = finish(solved_again(lm, edits, exactly))
        assert edit.hparams["anchors"] == (12 if asked is None else 0)
        (patch,) = edit.patches
        assert isinstance(patch, LowRank)
        assert patch.keys is not None
        own = patch.moved(patch.keys).mean(1) - patch.A.T
        assert float(own.norm()) < 1e-3 * float(patch.A.norm())  # facts get what they ask for
        moved[name] = float(patch.moved(others[0]).norm())
        if name == "held":  # and so does what is solved once more
            _, again = finish(solved_again(lm, [edit], ResolveParams(text=text)))
            assert again.hparams["anchors"] == 12
    assert moved["held"] < 0.6 * moved["free"]


def test_of_many_facts_each_is_held_off_fewer_names(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "NAMES", 6)
    lm = shared_lm("llama")
    hp = dataclasses.replace(small(text), anchors=12)
    edits = [finish(emmet(lm, [fact], hp))[1] for fact in FACTS[:2]]
    _, edit = finish(solved_again(lm, edits, ResolveParams(text=text)))
    assert edit.hparams["anchors"] == 3


def test_each_fact_has_as_many_other_names_as_it_was_made_with(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm("llama")
    made = [
        finish(emmet(lm, [fact], dataclasses.replace(small(text), anchors=count)))[1]
        for fact, count in zip(FACTS, (2, 5, 0), strict=True)
    ]
    asked, keys = [], anchors.keys

    def counted(lm: LM, requests: Sequence[Request], *rest: Any) -> Any:
        asked.append((tuple(requests), rest[-1]))
        return keys(lm, requests, *rest)

    monkeypatch.setattr(anchors, "keys", counted)
    finish(solved_again(lm, made, ResolveParams(text=text)))
    assert asked == [(FACTS[:1], 2), (FACTS[1:2], 5)]
