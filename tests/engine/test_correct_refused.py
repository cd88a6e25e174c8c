"""What is no correction, and one that breaks off: everything is as it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from engine.correct import correct
from engine.edit import Edit
from engine.errors import (
    BadRequest,
    BadSetting,
    SubjectAmbiguous,
    SubjectNotFound,
    UnknownName,
    UnsupportedModel,
)
from engine.evaluate import probes
from engine.ledger import Ledger
from engine.patches import LowRank
from engine.requests import Request

from .correcting import logits, run
from .support import NEAR, QUESTION, close_after, scripted, shared_lm, state, traces

pytestmark = pytest.mark.usefixtures("short_answers")


# -- what cannot be done ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "request_", "more", "error", "message"),
    [
        ("gemma", dataclasses.replace(NEAR, subject=None), {}, BadRequest, "needs the subject"),
        ("gemma", dataclasses.replace(NEAR, subject="Emma"), {}, SubjectNotFound, "'Emma'"),
        ("gemma", dataclasses.replace(NEAR, subject="e"), {}, SubjectAmbiguous, "'e' occurs"),
        ("gemma", dataclasses.replace(NEAR, target_new=" "), {}, BadRequest, "target is empty"),
        ("gemma", NEAR, {"method": "r-roma"}, UnknownName, "Did you mean 'r-rome'"),
        (
            "t5",
            NEAR,
            {"method": "memit"},
            UnsupportedModel,
            "memit does not edit 't5' models. It edits: bloom",
        ),
    ],
)
def test_what_cannot_be_corrected(
    family: str, request_: Request, more: dict[str, Any], error: Any, message: str, hp: Any
) -> None:
    lm, ledger = shared_lm(family), Ledger()
    with pytest.raises(error, match=message):
        run(lm, hp, request_, ledger, **more)
    assert ledger.edits == ()
    assert traces(lm.model) == {}


def test_a_setting_that_is_wrong_is_named(hp: dict[str, str]) -> None:
    lm = shared_lm("gemma")
    for change, message in (
        ({"stepz": "3"}, "unknown key 'stepz'"),
        ({"steps": "many"}, "'steps' must be a whole number, not 'many'"),
        ({"layer": "7"}, "'layer' must be a layer from 0 to 1, not '7'"),
        ({"text": "/nowhere/a.txt"}, "text: /nowhere/a.txt cannot be read"),
    ):
        with pytest.raises(BadSetting, match=message):
            run(lm, hp | change)
        assert traces(lm.model) == {}


def test_the_present_answer_is_no_correction(hp: dict[str, str]) -> None:
    lm, ledger = shared_lm("gemma"), Ledger()
    run(lm, hp, ledger=ledger, probes=False)
    before = ledger.fingerprint()
    with pytest.raises(BadRequest, match=r"equals the present answer .'capital"):
        run(lm, hp, ledger=ledger)
    chat = shared_lm("gemma", chat=True)
    sydney = chat.tokenizer("Sydney", add_special_tokens=False)["input_ids"]
    with scripted(chat, sydney), pytest.raises(BadRequest, match=r"present answer .'Sydney'"):
        run(chat, hp, QUESTION)
    assert ledger.fingerprint() == before
    assert traces(lm.model) == traces(chat.model) == {}


# -- breaking off -------------------------------------------------------------------------------


def test_cancelling_at_any_event_leaves_everything_as_it_was(hp: dict[str, str]) -> None:
    lm = shared_lm("llama", seed=4)
    site = lm.site("mlp_out", 1)
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(lm.width, 1, generator=generator)
    B = torch.randn(1, lm.arch.mlp_width, generator=generator)
    old = Edit(method="r-rome", requests=(NEAR,), patches=(LowRank(site, A, B),), hparams={})
    gone = dataclasses.replace(old, id="gone")
    ledger = Ledger([old], [gone])
    weights, said, mark = state(lm.model), logits(lm, ledger), ledger.fingerprint()
    short = hp | {"steps": "2"}
    for count in range(100):  # 0: before anything ran
        lm.statistics._ready.clear()
        work = correct(lm, ledger, NEAR, method="r-rome", overrides=short)
        events = close_after(work, count)
        if len(events) < count:
            break
        assert (ledger.edits, ledger.undone) == ((old,), (gone,))
        assert ledger.fingerprint() == mark
        assert (state(lm.model), traces(lm.model)) == (weights, {})
        assert torch.equal(logits(lm, ledger), said)
    assert events[-1].kind == "EditApplied"
    assert len(ledger.edits) == 2  # ran to its end


def test_an_error_on_the_way_leaves_everything_as_it_was(
    hp: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, ledger = shared_lm("gemma"), Ledger()
    weights, said = state(lm.model), logits(lm, ledger)

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(probes.Probes, "compare", fail)
    with pytest.raises(MemoryError):
        run(lm, hp, ledger=ledger)
    assert ledger.edits == ()
    assert (state(lm.model), traces(lm.model)) == (weights, {})
    assert torch.equal(logits(lm, ledger), said)
