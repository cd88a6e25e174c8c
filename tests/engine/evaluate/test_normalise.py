"""Normal form, heads, and the two rules of success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluate.normalise import (
    begins_with,
    equals,
    first_sentence,
    head,
    mentions,
    normalise,
    same_head,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  The  Beatles. ", "beatles"),
        ("A cat, an apple & the dog!", "cat apple dog"),
        ("L.A.", "la"),
        ("Zürich", "zürich"),
        ("Zu\u0308rich", "zürich"),  # decomposed
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("«Москва»", "москва"),
        ("東京。", "東京"),
        ("theatre", "theatre"),  # an article inside a word stays
        ("The", "the"),  # nothing but an article is kept as it is
        ("?!", "?!"),
    ],
)
def test_normal_form(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@given(st.text())
def test_normal_form_is_stable_and_empty_only_for_blanks(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == normalise(normalise(once))
    assert bool(once) == bool(text.strip())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Paris. It is big.", "Paris."),
        ("Is it? Yes.", "Is it?"),
        (
            "It was written by J. R. R. Tolkien. He was British.",
            "It was written by J. R. R. Tolkien.",
        ),
        ("He lives in St. Petersburg. It is cold.", "He lives in St. Petersburg."),
        ("It weighs 1.5 kg. Really.", "It weighs 1.5 kg."),
        ("The answer is no. It is not.", "The answer is no."),
        ('He said "no." Then he left.', 'He said "no.'),
        ("one line\nanother", "one line"),
        ("東京です。大阪です。", "東京です。"),
        ("no end", "no end"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, wanted: str) -> None:
    assert first_sentence(text) == wanted


def test_the_head_has_at_most_twelve_words() -> None:
    assert head(" ".join(map(str, range(40)))) == "0 1 2 3 4 5 6 7 8 9 10 11"


def test_a_head_is_kept_whatever_follows_it() -> None:
    assert same_head("It is Paris. Nice city.", "it is paris.  Ugly city.")
    assert not same_head("It is Paris. Nice city.", "It is Lyon. Nice city.")


@pytest.mark.parametrize(
    ("answer", "target", "wanted"),
    [
        ("Melbourne.", "Melbourne", True),
        ("the melbourne", "Melbourne", True),
        ("Melbourne is", "Melbourne", False),
        ("It is Melbourne", "Melbourne", False),
        ("", "Melbourne", False),
        ("The", "A", False),  # both are empty in SQuAD's form
        ("São Paulo", "Sa\u0303o Paulo", True),
        ("ΑΘΗΝΑ", "Αθηνα", True),
    ],
)
def test_a_chat_answer_equals_the_target(answer: str, target: str, wanted: bool) -> None:
    assert equals(answer, target) is wanted


@pytest.mark.parametrize(
    ("text", "target", "wanted"),
    [
        (" Joe Biden, who", "Joe Biden", True),
        ("the Joe Biden", "Joe Biden", True),
        ("Parisian cafés", "Paris", False),
        ("soccer/football", "soccer", True),
        ("U.S. Army", "US", True),
        ("London-based", "London", True),
        ("not Paris", "Paris", False),
        ("東京は日本の", "東京", True),
        ("Paris", "Paris, France", False),
        ("", "Paris", False),
    ],
)
def test_a_statement_begins_with_the_target(text: str, target: str, wanted: bool) -> None:
    assert begins_with(text, target) is wanted


def test_an_answer_mentions_whole_words_only() -> None:
    assert mentions("The capital is Ottawa.", ["Toronto", "Ottawa"])
    assert mentions("It orbits Saint-Pierre", ["Saint Pierre"])
    assert not mentions("Romeo", ["Rome"])
    assert not mentions("Rome", [])
