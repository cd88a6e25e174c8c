"""The keys that hold an edit in place are those of the same question about other names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import anchors, hooks
from engine.evaluate.probes import neighbours, sentinels
from engine.events import Loading
from engine.lm import LM
from engine.requests import Request

from .support import close_after, finish, shared_lm, traces

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
    _, each_layer = finish(anchors.keys(lm, [asked], [0, 1], COUNT))
    found = each_layer[1]
    assert found.shape == wanted.shape
    assert torch.allclose(found.T @ found, wanted.T @ wanted, rtol=1e-4, atol=1e-4)  # any order


def test_nothing_is_read_without_a_subject_or_a_count() -> None:
    lm = shared_lm("llama", chat=True)
    assert finish(anchors.keys(lm, [request(subject=None)], [1], COUNT)) == ([], {})
    assert finish(anchors.keys(lm, [request()], [1], 0)) == ([], {})


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_all_layers_of_many_requests_are_those_of_each(family: str) -> None:
    lm = shared_lm(family, chat=family != "t5")
    both = [request(), request(subject=None), request(prompt="Who is France?")]
    _, together = finish(anchors.keys(lm, both, [0, 1], COUNT))
    for layer in (0, 1):
        alone = [finish(anchors.keys(lm, [one], [layer], COUNT))[1].get(layer) for one in both]
        assert torch.equal(together[layer], torch.cat([x for x in alone if x is not None]))


def test_it_is_told_how_many_have_been_read_and_a_close_leaves_nothing() -> None:
    lm = shared_lm("llama", chat=True)
    both = [request(), request(prompt="Who is France?")]
    before, prompts = traces(lm.model), [lm.prompt("Who is Emma?", chat=True)]
    logits = lm.logits(prompts)
    events, _ = finish(anchors.keys(lm, both, [0, 1], COUNT))
    told = [(e.done, e.total) for e in events if isinstance(e, Loading)]
    total = 2 * COUNT
    assert told == [(0, total), (1, total), (33, total), (COUNT, total),
                    (COUNT + 1, total), (COUNT + 33, total), (total, total)]  # fmt: skip
    for count in range(1, len(events) + 1):
        close_after(anchors.keys(lm, both, [0, 1], COUNT), count)
        assert traces(lm.model) == before
        assert torch.equal(lm.logits(prompts), logits)


def test_a_window_shorter_than_the_shared_beginning() -> None:
    lm = shared_lm("mistral", chat=True, attn="eager", sliding_window=8)
    asked = request()
    names = anchors.names(asked, 3)
    rows = [lm.prompt(f"What is the capital of {name}?", chat=True).ids for name in names]
    with torch.no_grad():
        each = [keys_of(lm, lm.site("mlp_out", 1), row) for row in rows]
    found = finish(anchors.keys(lm, [asked], [1], 3))[1][1]
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
