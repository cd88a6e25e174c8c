"""Texts put before a prompt: the same for a model and a seed, kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import contexts, paths
from engine.events import Loading
from engine.lm import LM
from engine.patches import LowRank
from engine.requests import Request
from engine.tokens import last_token

from .support import finish, shared_lm, traces


def sample(lm: LM, count: int = 10, seed: int = 0) -> tuple[str, ...]:
    _, texts = finish(contexts.contexts(lm, count, seed))
    return texts


def forget() -> None:
    for file in files():
        file.unlink()


def files() -> list[Path]:
    return sorted((paths.cache() / "contexts").rglob("*.json"))


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text", "bloom", "llama"])
def test_they_are_beginnings_of_sentences(family: str) -> None:
    texts = sample(shared_lm(family))
    assert len(texts) == 10
    for text, opening in zip(texts, contexts.OPENINGS * 2, strict=True):
        assert text.startswith(opening)
        assert text == " ".join(text.split())
    assert len(set(texts)) > 5
    assert traces(shared_lm(family).model) == {}


def test_half_are_short_and_each_token_is_a_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm("gpt2")
    monkeypatch.setattr(contexts, "TOP_K", 1)  # then they are what greedy decoding says
    texts = sample(lm, 10)
    for i, text in enumerate(texts):
        opening = contexts.OPENINGS[i % 5]
        prompt = lm.statement(opening)
        given = torch.tensor([prompt.ids])
        ids = lm.model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=5 if i < 5 else 10,
            eos_token_id=None,
            pad_token_id=0,
        )[0].tolist()
        said = lm.decode(ids[len(prompt.ids) :])
        assert text == " ".join((opening + said).split())


def test_a_seed_repeats_and_another_does_not() -> None:
    lm = shared_lm("gpt2")
    first = sample(lm)
    forget()
    assert sample(lm) == first
    assert sample(lm, seed=1) != first
    assert len(sample(lm, 4)) == 4
    assert len(files()) == 3


def test_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm("gpt2")
    events, texts = finish(contexts.contexts(lm, 3, 0))
    assert [(e.stage, e.done, e.total) for e in events if isinstance(e, Loading)] == [
        ("contexts", 0, 3),
        ("contexts", 3, 3),
    ]
    monkeypatch.setattr(contexts, "_sample", lambda *_: pytest.fail("made again"))
    assert finish(contexts.contexts(lm, 3, 0)) == ([], texts)
    assert finish(contexts.contexts(lm, 0, 0)) == ([], ())


def test_models_do_not_share_them() -> None:
    assert sample(shared_lm("gpt2")) != sample(shared_lm("gpt2", seed=1))


@pytest.mark.parametrize("content", [b"", b'["The', b"\xff\xfe"])
def test_a_damaged_file_is_made_again(content: bytes) -> None:
    lm = shared_lm("gpt2")
    texts = sample(lm)
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert sample(lm) == texts
    assert file.read_bytes() == whole


def test_active_edits_do_not_write_them() -> None:
    lm = shared_lm("llama")
    texts = sample(lm)
    forget()
    site = lm.site("mlp_out", 0)
    patch = LowRank(site, 5 * torch.ones(lm.width, 1), torch.ones(1, lm.arch.mlp_width))
    with lm.active([patch]):
        assert sample(lm) == texts


# -- prompts ------------------------------------------------------------------------------------


def test_statements_stand_behind_contexts() -> None:
    lm = shared_lm("llama")
    request = Request(prompt="Emma is by", subject="Emma", target_new="me")
    found = contexts.prompts(lm, request, ("The day", "I was"))
    assert [p.text for p in found] == ["Emma is by", "The day. Emma is by", "I was. Emma is by"]
    for prompt in found:  # the very same last words in each
        at = last_token(prompt, "Emma")
        assert prompt.ids[at:] == found[0].ids[last_token(found[0], "Emma") :]


def test_in_a_chat_they_stand_inside_the_users_turn() -> None:
    lm = shared_lm("gpt2", chat=True)
    history = (("Hi", "Hello"),)
    request = Request(
        prompt="Who wrote Emma?", subject="Emma", target_new="me", chat=True, history=history
    )
    bare, behind, later = contexts.prompts(lm, request, ("The day",))
    assert bare == lm.render("Who wrote Emma?")
    assert behind == lm.render("The day. Who wrote Emma?")
    assert later == lm.render("Who wrote Emma?", history)


def test_a_context_that_holds_the_subject_is_left_out() -> None:
    lm = shared_lm("gpt2")
    request = Request(prompt="Io orbits", subject="Io", target_new="Mars")
    found = contexts.prompts(lm, request, ("The Ionian sea", "Because"))
    assert [p.text for p in found] == ["Io orbits", "Because. Io orbits"]
    for prompt in found:
        last_token(prompt, "Io")
