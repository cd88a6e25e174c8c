"""Decoding: streamed, batched and the library's own greedy search say the same."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import generate
from engine.events import Event, ReplyEnded, Token
from engine.generate import Reply
from engine.lm import LM
from engine.tokens import Rendered
from tests.tiny import CAUSAL, FAMILIES

from .support import close_after, finish, scripted, shared_lm, state, traces

QUESTIONS = (
    "Who wrote Emma?",
    "What is the capital of Australia, and of England?",
    "Paris",
    "Is the Space Needle in Seattle or in São Paulo? 東京",
)


def stream(lm: LM, prompt: Rendered, **options: Any) -> tuple[list[Event], Reply]:
    return finish(generate.stream(lm, prompt, **options))


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Token)]


def library(lm: LM, prompt: Rendered, max_tokens: int) -> list[int]:
    """What transformers' own greedy search appends, every step from the beginning."""
    ids = torch.tensor([prompt.ids])
    found = lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_tokens,
        use_cache=False,
        pad_token_id=lm.tokenizer.eos_token_id,
    )[0].tolist()
    new = found[1:] if lm.encoder_decoder else found[ids.shape[1] :]
    stops = lm.stop_ids(prompt)
    return [i for n, i in enumerate(new) if not stops & set(new[: n + 1])]


# -- agreement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_is_handed_on_by_the_name_that_the_library_has_for_it_now(family: str) -> None:
    lm = shared_lm(family)
    named = set(inspect.signature(lm.model.forward).parameters)
    assert set(lm.going_on(None)) <= named
    assert set(lm.going_on(None)) <= set(inspect.signature(lm.model.base_model.forward).parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_batched_and_plain_greedy_agree(family: str) -> None:
    lm = shared_lm(family, seed=7)
    prompts = [lm.statement(text) for text in QUESTIONS[:3]]
    assert len({len(p.ids) for p in prompts}) == len(prompts)  # padding is needed
    plain = [library(lm, prompt, 7) for prompt in prompts]
    assert len(set(map(tuple, plain))) > 1, "the model says the same whatever it is asked"
    for prompt, ids in zip(prompts, plain, strict=True):
        events, reply = stream(lm, prompt, max_tokens=7)
        assert list(reply.ids) == ids
        assert reply.text == lm.decode(ids).strip()
        if "\ufffd" not in reply.text:  # a random model may spell out bytes that are no text
            assert "".join(said(events)).rstrip() == reply.text
    assert lm.answers(prompts, max_tokens=7) == [lm.decode(ids).strip() for ids in plain]
    assert traces(lm.model) == {}


@pytest.mark.parametrize("family", CAUSAL)
def test_padding_changes_no_logits(family: str) -> None:
    lm = shared_lm(family)
    prompts = [lm.statement(text) for text in QUESTIONS]
    ids, mask = lm.pack([p.ids for p in prompts])
    assert ids[mask == 0].numel() > 0
    assert bool((mask[:, -1] == 1).all())
    batch, _ = generate.begin(lm, ids, mask)
    assert torch.allclose(batch, lm.logits(prompts), atol=1e-5)
    with torch.no_grad():
        plain = torch.cat([lm.model(torch.tensor([p.ids])).logits[:, -1] for p in prompts])
    assert torch.allclose(lm.logits(prompts), plain, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "t5"])
def test_long_batches_are_split(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm(family, seed=7)
    prompts = [lm.statement(text) for text in QUESTIONS]
    whole = lm.answers(prompts, max_tokens=5)
    monkeypatch.setattr(generate, "BATCH", 3)
    assert lm.answers(prompts, max_tokens=5) == whole
    assert lm.answers([]) == []


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_reply_ends_at_the_prompts_own_ending(family: str) -> None:
    lm = shared_lm(family, seed=7)
    prompt = lm.statement(QUESTIONS[1])
    _, free = stream(lm, prompt, max_tokens=12)
    assert free.reason == "length"
    assert len(free.ids) == 12
    cut = max(n for n in range(12) if free.ids[n] not in free.ids[:n])
    assert cut > 0
    ending = dataclasses.replace(prompt, ending=(free.ids[cut],))
    events, reply = stream(lm, ending, max_tokens=12)
    assert (reply.ids, reply.reason) == (free.ids[:cut], "stop")
    last = events[-1]
    assert isinstance(last, ReplyEnded)
    assert (last.text, last.tokens, last.reason) == (reply.text, cut, "stop")
    assert 0 < last.first_token <= last.seconds
    assert lm.answers([prompt, ending], max_tokens=12)[1] == reply.text


def test_eos_ends_a_reply_and_is_not_said() -> None:
    lm = shared_lm("gpt2")
    ids = lm.tokenizer("Jane Austen")["input_ids"]
    with scripted(lm, ids):
        _, reply = stream(lm, lm.statement("x"), max_tokens=50)
    assert (reply.text, reply.ids, reply.reason) == ("Jane Austen", tuple(ids), "stop")


def test_all_ends_that_a_model_is_configured_with_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm("gpt2")
    monkeypatch.setattr(lm.model.generation_config, "eos_token_id", [5, 6])
    prompt = dataclasses.replace(lm.statement("x"), ending=(7,))
    assert lm.stop_ids(prompt) == {5, 6, 7, lm.tokenizer.eos_token_id}
    # In a Q/A preamble a line break may stand before the answer: the text decides there.
    assert 7 not in lm.stop_ids(dataclasses.replace(prompt, stop_text="\n"))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" Jane Austen\nQ: Who", "Jane Austen"),
        ("\n\n Jane Austen\nQ: Who", "Jane Austen"),  # blank lines before are no end
        (" Jane Austen", "Jane Austen"),  # by EOS
        (" \n ", ""),
    ],
)
def test_stop_text(written: str, text: str) -> None:
    lm = shared_lm("gpt2")
    prompt = dataclasses.replace(lm.statement("Q: Who?\nA:"), stop_text="\n")
    ids = lm.tokenizer(written)["input_ids"]
    with scripted(lm, ids):
        events, reply = stream(lm, prompt, max_tokens=50)
    assert (reply.text, reply.reason) == (text, "stop")
    assert "".join(said(events)).rstrip() == text
    other = lm.tokenizer(" something that goes on for longer than that")["input_ids"]
    with scripted(lm, ids, other):
        both = lm.answers([prompt, lm.statement("y")], max_tokens=50)
    assert both == [text, "something that goes on for longer than that"]


# -- pieces -------------------------------------------------------------------------------------


TEXTS = st.text(alphabet="ab é東👩🏽‍🚀🇨🇭न\u093f\n", min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(family=st.sampled_from(["gpt2", "llama", "gemma"]), text=TEXTS, data=st.data())
def test_no_piece_ever_holds_half_a_character(family: str, text: str, data: st.DataObject) -> None:
    lm = shared_lm(family)
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    limit = data.draw(st.integers(1, len(ids) + 1))
    with scripted(lm, ids):
        events, reply = stream(lm, lm.statement("x"), max_tokens=limit)
    pieces = said(events)
    assert all(pieces)
    whole = lm.decode(ids[:limit])
    assert reply.text == whole.strip()
    if "\ufffd" not in whole:
        assert "".join(pieces) == whole.lstrip()
    for piece in pieces[:-1]:  # the last one shows what a cut left
        assert "\ufffd" not in piece
    shown = "".join(pieces).split("\ufffd")[0]
    assert text.strip().startswith(shown.strip())


def test_text_is_shown_as_soon_as_it_is_whole() -> None:
    lm = shared_lm("gpt2")
    ids = lm.tokenizer("a😀b")["input_ids"]
    assert len(ids) == 6  # the emoji takes four tokens
    with scripted(lm, ids):
        running = generate.stream(lm, lm.statement("x"), max_tokens=9)
        assert [event.text for _, event in zip(range(3), running, strict=False)] == ["a", "😀", "b"]


# -- cancel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "t5"])
def test_a_reply_can_be_cancelled_between_tokens(family: str) -> None:
    lm = shared_lm(family, seed=7)
    before = state(lm.model)
    prompt = lm.statement(QUESTIONS[1])
    _, whole = stream(lm, prompt, max_tokens=8)
    for count in range(1, 5):
        events = close_after(generate.stream(lm, prompt, max_tokens=8), count)
        assert len(events) == count
        assert traces(lm.model) == {}
    assert state(lm.model) == before
    assert stream(lm, prompt, max_tokens=8)[1].ids == whole.ids


# -- sampling -----------------------------------------------------------------------------------


def test_a_seed_repeats_a_sample() -> None:
    lm = shared_lm("llama")
    prompt = lm.statement(QUESTIONS[1])
    samples = [
        stream(lm, prompt, max_tokens=12, temperature=1.5, seed=seed)[1].ids
        for seed in (0, 1, 2, 0, 1, 2)
    ]
    assert samples[:3] == samples[3:]
    assert len(set(samples)) == 3
    greedy = stream(lm, prompt, max_tokens=12)[1].ids
    assert stream(lm, prompt, max_tokens=12, temperature=1.0, top_p=0.0)[1].ids == greedy
    assert stream(lm, prompt, max_tokens=12, temperature=1e-4)[1].ids == greedy


def test_samples_follow_the_distribution() -> None:
    """Frequencies against softmax(logits / T), cut to the smallest set of mass top_p."""
    p = torch.tensor([0.1, 0.5, 0.25, 0.15])
    sampler = torch.Generator().manual_seed(0)

    def frequencies(temperature: float, top_p: float) -> torch.Tensor:
        logits = p.log() * temperature  # so that the temperature gives p back
        drawn = [generate._choose(logits, temperature, top_p, sampler) for _ in range(4000)]
        return torch.bincount(torch.tensor(drawn), minlength=4) / 4000

    assert torch.allclose(frequencies(0.5, 1.0), p, atol=0.03)
    assert torch.allclose(frequencies(2.0, 1.0), p, atol=0.03)
    cut = frequencies(1.0, 0.7)  # 0.5 + 0.25 reach 0.7; 0.15 is no longer needed
    assert torch.allclose(cut, torch.tensor([0, 2 / 3, 1 / 3, 0]), atol=0.03)


@torch.no_grad()
def test_the_cache_grows_by_one_token_at_a_time() -> None:
    """Logits after each appended token equal those of the whole sequence read at once."""
    for family in ("gpt2", "gpt_neo", "bloom", "opt", "gemma2", "falcon"):
        lm = shared_lm(family)
        rows = [lm.statement(text).ids for text in QUESTIONS[:2]]
        logits, running = generate.begin(lm, *lm.pack(rows))
        for _ in range(3):
            chosen = logits.argmax(-1, keepdim=True)
            logits = generate.advance(lm, running, chosen)
            rows = [(*row, int(c)) for row, c in zip(rows, chosen, strict=True)]
            whole = torch.cat([lm.model(torch.tensor([row])).logits[:, -1] for row in rows])
            assert torch.allclose(logits, whole, atol=1e-4), family
