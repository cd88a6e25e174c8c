"""Texts longer than a table of positions: one clear sentence, and answers that end in time."""

from __future__ import annotations

import pytest
import torch

from engine import generate
from engine.errors import BadRequest
from engine.events import Loading
from engine.methods.rome import RomeParams, r_rome
from engine.requests import Request
from tests.tiny import CAUSAL

from .support import close_after, finish, shared_lm, state, traces

BOUNDED = ("gpt2", "gptj", "gpt_neo", "opt")  # 256 positions each
LONG = "Emma was in the city of the Space Needle. " * 60


def prompt_of(lm, tokens: int):  # type: ignore[no-untyped-def]
    """A statement of exactly so many tokens."""
    words = LONG.split(" ")
    for n in range(1, len(words)):
        found = lm.statement(" ".join(words[:n]))
        if len(found.ids) >= tokens:
            break
    cut = len(found.ids) - tokens
    return type(found)(**{**vars(found), "ids": found.ids[cut:], "spans": found.spans[cut:]})


def test_which_families_cannot_read_on() -> None:
    found = {family for family in CAUSAL if shared_lm(family).limit is not None}
    assert set(BOUNDED) <= found
    assert {"llama", "bloom", "falcon", "phi"}.isdisjoint(found)


@pytest.mark.parametrize("family", BOUNDED)
def test_what_is_too_long_is_refused_in_words(family: str) -> None:
    lm = shared_lm(family)
    assert lm.reply(prompt_of(lm, 256), 5).ids, "as much as it can read"
    before = state(lm.model)
    for ask in (lm.reply, lambda p: lm.answers([p]), lambda p: lm.logits([p])):
        with pytest.raises(BadRequest, match=r"257 tokens; .* reads at most 256. Shorten it"):
            ask(prompt_of(lm, 257))
    request = Request(prompt=f"{LONG} Tacoma", subject="Tacoma", target_new="England")
    params = RomeParams(layer=0, contexts=0, steps=1, text="wikipedia-vital", tokens=10)
    with pytest.raises(BadRequest, match="reads at most 256"):
        finish(r_rome(lm, [request], params))
    assert (state(lm.model), traces(lm.model)) == (before, {})


@pytest.mark.parametrize("family", BOUNDED)
def test_an_answer_ends_where_there_is_no_room_left(family: str) -> None:
    lm = shared_lm(family)
    prompt = prompt_of(lm, 250)
    reply = lm.reply(prompt, 64)
    assert len(reply.ids) <= 7  # the last one is never read
    if len(reply.ids) == 7:
        assert reply.reason == "length"
    assert lm.answers([prompt, prompt_of(lm, 20)])[0] == reply.text.strip()


def test_a_model_that_computes_positions_reads_on() -> None:
    lm = shared_lm("llama")
    assert lm.reply(prompt_of(lm, 300), 5).ids


@pytest.mark.parametrize("tokens", [96, 97, 111])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_long_prompt_is_read_in_pieces(
    family: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm(family)
    prompt = prompt_of(lm, tokens)
    events, whole = finish(lm.generate(prompt, max_tokens=6))
    assert not any(isinstance(event, Loading) for event in events)
    monkeypatch.setattr(generate, "PIECE", 16)
    events, pieces = finish(lm.generate(prompt, max_tokens=6))
    assert pieces.ids == whole.ids
    told = [event for event in events if isinstance(event, Loading)]
    assert [event.done for event in told] == list(range(0, tokens, 16))[: len(told)]
    assert {(event.stage, event.total) for event in told} == {("prompt", tokens)}
    with torch.no_grad():
        both = [finish(generate._read(lm, *lm.pack([prompt.ids])))[1][0]]
        monkeypatch.setattr(generate, "PIECE", 1000)
        both += [finish(generate._read(lm, *lm.pack([prompt.ids])))[1][0]]
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)


def test_reading_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "PIECE", 16)
    lm = shared_lm("llama")
    before, read = state(lm.model), []
    body = lm.body
    monkeypatch.setattr(lm, "body", lambda *a, **k: (read.append(1), body(*a, **k))[1])
    close_after(lm.generate(prompt_of(lm, 100), max_tokens=6), 3)
    assert len(read) == 2
    assert (state(lm.model), traces(lm.model)) == (before, {})
