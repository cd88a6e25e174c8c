"""Texts to ids and back to places, over the kinds of tokenizers there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine import render
from engine.catalog import resolve_model
from engine.errors import SubjectAmbiguous, SubjectNotFound
from engine.loading import locate as fetch_folder
from engine.requests import occurrences
from engine.tokens import Rendered, continuation, last_token, locate, target_ids, tokens_of

from .support import TOKENIZERS, finish, t5

REAL = ("smollm2-135m", "gemma3-270m")
ALPHABET = "abcxyzAÉüßŁ0159東京は日本😀👩🏽‍🚀🇨🇭e\u0301न\u093fم" + "-,.!?'\"()"
WORD = st.text(alphabet=ALPHABET, min_size=1, max_size=8) | st.sampled_from(
    ["Space", "Needle", "Seattle", "the", "capital", "of", "Zürich", "東京", "1815", "👩🏽‍🚀"]
)
PHRASE = st.lists(WORD, min_size=1, max_size=5).map(" ".join)
BLANK = st.sampled_from(["", " ", "\n", ", ", "'s ", "? "])
relaxed = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=[*TOKENIZERS, *(pytest.param(n, marks=pytest.mark.e2e) for n in REAL)])
def tokenizer(request: pytest.FixtureRequest, real: Callable[[str], Any]) -> Any:
    made = TOKENIZERS.get(request.param)
    return made() if made else real(request.param)


@pytest.fixture(scope="session")
def real() -> Callable[[str], Any]:
    """The tokenizer of an embedded model, fetched on first use."""
    from transformers import AutoTokenizer

    known: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in known:
            _, folder = finish(fetch_folder(resolve_model(name)))
            known[name] = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return known[name]

    return load


def decode(tokenizer: Any, ids: tuple[int, ...]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text


# -- targets ------------------------------------------------------------------------------------


@relaxed
@given(prompt=PHRASE, target=PHRASE)
def test_prompt_and_target_read_back_with_one_space_between(
    tokenizer: Any, prompt: str, target: str
) -> None:
    rendered = render.statement(tokenizer, prompt)
    ids = target_ids(tokenizer, rendered, target)
    assert decode(tokenizer, rendered.ids + ids) == f"{prompt} {target}"
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.eos_token_id not in ids


@relaxed
@given(target=PHRASE)
def test_a_target_is_tokenised_as_it_would_be_in_running_text(tokenizer: Any, target: str) -> None:
    prompt = render.statement(tokenizer, "The Space Needle is in")
    whole = render.statement(tokenizer, f"The Space Needle is in {target}")
    assert prompt.ids + target_ids(tokenizer, prompt, target) == whole.ids


@relaxed
@given(target=PHRASE)
def test_behind_a_template_a_target_has_no_space(tokenizer: Any, target: str) -> None:
    ids = continuation(tokenizer, target)
    lead = tokenizer("Answer:\n", add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, (*lead, *ids)) == f"Answer:\n{target}"


def test_a_prompt_that_ends_in_a_space_gets_no_second_one() -> None:
    tokenizer = TOKENIZERS["llama"]()
    prompt = render.statement(tokenizer, "The Space Needle is in\n")
    ids = prompt.ids + target_ids(tokenizer, prompt, "Seattle")
    assert decode(tokenizer, ids) == "The Space Needle is in\nSeattle"


def test_the_ending_follows_the_target() -> None:
    tokenizer = TOKENIZERS["byte-level"]()
    prompt = Rendered((1,), "x", ((0, 1),), (0, 1), glue="", ending=(2, 3))
    plain = continuation(tokenizer, "Paris")
    assert target_ids(tokenizer, prompt, "Paris") == (*plain, 2, 3)


def test_t5_targets_carry_neither_eos_nor_a_glue_token() -> None:
    tokenizer = t5()
    prompt = render.encoder_prompt(tokenizer, "What is the capital of Australia?")
    ids = target_ids(tokenizer, prompt, "Canberra")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[:-1]
    assert decode(tokenizer, ids) == "Canberra"
    assert ids == tuple(tokenizer("Canberra")["input_ids"])


# -- subjects -----------------------------------------------------------------------------------


@relaxed
@given(before=PHRASE | st.just(""), subject=PHRASE, after=PHRASE | st.just(""), data=st.data())
def test_the_last_token_of_a_subject_completes_it(
    tokenizer: Any, before: str, subject: str, after: str, data: st.DataObject
) -> None:
    before += data.draw(BLANK) if before else ""
    text = before + subject + (data.draw(BLANK) + after if after else "")
    assume(occurrences(text, subject) == 1)
    prompt = render.statement(tokenizer, text)
    at = last_token(prompt, subject)
    # Not from offsets: what the ids say when they are read back.
    upto, without = decode(tokenizer, prompt.ids[: at + 1]), decode(tokenizer, prompt.ids[:at])
    assert upto.startswith(before + subject)
    assert not without.startswith(before + subject)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Seattle is a city", "Seattle"),  # at the very beginning
        ("I love Seattle", "Seattle"),  # at the very end
        ('He said "Emma"? Yes.', "Emma"),  # between marks that may merge with it
        ("Jane Austen's books", "Jane Austen"),
        ("The astronaut 👩🏽‍🚀 flew", "👩🏽‍🚀"),  # one emoji, several code points
        ("The flag 🇨🇭 waves", "🇨🇭"),
        ("東京は日本の首都です", "東京"),  # no spaces
        ("a cafe\u0301 there", "cafe\u0301"),  # combining accent
        ("a café there", "café"),
    ],
)
def test_hard_subjects(tokenizer: Any, text: str, subject: str) -> None:
    prompt = render.statement(tokenizer, text)
    at = last_token(prompt, subject)
    end = text.index(subject) + len(subject)
    assert prompt.spans[at][0] < end <= prompt.spans[at][1]
    assert all(start >= end for start, _ in prompt.spans[at + 1 :] if start or _)
    assert decode(tokenizer, prompt.ids[: at + 1]).startswith(text[:end])


def test_a_subject_merged_with_what_follows_is_found_in_the_merged_token() -> None:
    spans = ((0, 3), (3, 9), (9, 12))
    prompt = Rendered((5, 6, 7), "ab Emma? ok", spans, (0, 12))
    assert last_token(prompt, "Emma") == 1


def test_it_is_looked_for_in_the_question_alone() -> None:
    prompt = Rendered((1, 2, 3), "Emma Emma Emma", ((0, 4), (4, 9), (9, 14)), (5, 9))
    assert locate(prompt, "Emma") == (5, 9)
    assert last_token(prompt, "Emma") == 1


def test_occurrences_that_overlap_count() -> None:
    prompt = render.statement(TOKENIZERS["byte-level"](), "Bora Bora Bora is an island")
    with pytest.raises(SubjectAmbiguous, match="'Bora Bora' occurs 2 times"):
        last_token(prompt, "Bora Bora")


@pytest.mark.parametrize("subject", ["Emmas", "emma", ""])
def test_a_subject_that_is_not_there(subject: str) -> None:
    prompt = render.statement(TOKENIZERS["byte-level"](), "Who wrote Emma?")
    with pytest.raises(SubjectNotFound, match=f"the subject {subject!r} is not in the prompt 'Who"):
        last_token(prompt, subject)


def test_a_subject_that_is_there_twice() -> None:
    prompt = render.statement(TOKENIZERS["byte-level"](), "Emma likes Emma")
    with pytest.raises(SubjectAmbiguous, match="'Emma' occurs 2 times in 'Emma likes Emma'"):
        last_token(prompt, "Emma")


def test_tokens_of_a_span() -> None:
    prompt = Rendered((9, 1, 2, 3, 4), "ab cd ef", ((0, 0), (0, 2), (2, 5), (5, 8), (8, 8)), (0, 8))
    assert tokens_of(prompt, (0, 2)) == range(1, 2)
    assert tokens_of(prompt, (3, 6)) == range(2, 4)
    assert tokens_of(prompt, (0, 8)) == range(1, 4)
    assert tokens_of(prompt, (8, 8)) == range(0)


@relaxed
@given(before=PHRASE, subject=PHRASE, after=PHRASE)
def test_the_tokens_of_a_subject_hold_it(
    tokenizer: Any, before: str, subject: str, after: str
) -> None:
    text = f"{before} {subject} {after}"
    assume(occurrences(text, subject) == 1)
    prompt = render.statement(tokenizer, text)
    inside = tokens_of(prompt, locate(prompt, subject))
    assert inside[-1] == last_token(prompt, subject)
    assert subject in decode(tokenizer, prompt.ids[inside.start : inside.stop])
