"""The keys that hold an edit in place are those of the same question about other names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import anchors, hooks
from engine.evaluate.probes import neighbours, sentinels
from engine.lm import LM
from engine.requests import Request

from .support import shared_lm

COUNT = 40  # more than one batch of rows


def request(**own: Any) -> Request:
    fields = {"prompt": "What is the capital of France?", "subject": "France", "chat": True}
    return Request(**{**fields, "target_new": "Lyon", **own})


def keys_of(lm: LM, site: str, ids: tuple[int, ...]) -> Tensor:
    with hooks.capture(lm.model, site, inputs=True, stop=True) as seen:
        lm.model(torch.tensor([ids]))
    return seen[site].reshape(len(ids), -1).float()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "falcon", "gemma3_text"])
@pytest.mark.parametrize("chat", [True, False])
def test_every_position_is_read_and_the_shared_ones_once(family: str, chat: bool) -> None:
    lm = shared_lm(family, chat=True)
    asked = request(chat=chat)
    site = lm.site("mlp_out", 1)
    names = anchors.names(asked, COUNT)
    assert len(names) == COUNT
    rows = [lm.prompt(f"What is the capital of {name}?", chat=chat).ids for name in names]
    shared = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
    with torch.no_grad():
        each = [keys_of(lm, site, row) for row in rows]
    wanted = torch.cat([each[0][:shared], *(k[shared:] for k in each)])
    found = anchors.keys(lm, asked, 1, COUNT)
    assert found is not None
    assert found.shape == wanted.shape
    assert torch.allclose(found.T @ found, wanted.T @ wanted, rtol=1e-4, atol=1e-4)  # any order


def test_nothing_is_read_without_a_subject_or_a_count() -> None:
    lm = shared_lm("llama", chat=True)
    assert anchors.keys(lm, request(subject=None), 1, COUNT) is None
    assert anchors.keys(lm, request(), 1, 0) is None


def test_a_window_shorter_than_the_shared_beginning() -> None:
    lm = shared_lm("mistral", chat=True, attn="eager", sliding_window=8)
    asked = request()
    names = anchors.names(asked, 3)
    rows = [lm.prompt(f"What is the capital of {name}?", chat=True).ids for name in names]
    with torch.no_grad():
        each = [keys_of(lm, lm.site("mlp_out", 1), row) for row in rows]
    found = anchors.keys(lm, asked, 1, 3)
    assert found is not None
    assert len(found) == sum(map(len, rows))
    assert torch.allclose(found.T @ found, sum(k.T @ k for k in each), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chat", [True, False])
def test_what_is_asked_afterwards_has_not_been_held_in_place(chat: bool) -> None:
    prompt = "What is the capital of Australia?" if chat else "The capital of Australia is"
    asked = request(prompt=prompt, subject="Australia", chat=chat)
    held = {prompt.replace("Australia", name) for name in anchors.names(asked, 1000)}
    tested = (*neighbours(asked), *sentinels(asked))
    assert len(held) > 100
    assert prompt.replace("Australia", "France") in tested
    assert not held & set(tested)
