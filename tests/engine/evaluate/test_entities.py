"""Other things of the same kind."""

from __future__ import annotations

import pytest

from engine.evaluate.entities import kind_of, known, others
from engine.evaluate.normalise import normalise


@pytest.mark.parametrize(
    ("subject", "prompt", "kind"),
    [
        ("Australia", "What is the capital of Australia?", "country"),
        ("the United States", "The name of the president of the United States is", "country"),
        ("Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "person"),
        ("gold", "What is the chemical symbol for gold?", "element"),
        ("Mercury", "Which planet is Mercury next to?", "planet or moon"),
        ("mercury", "What is the chemical symbol for mercury?", "element"),
        ("Ubik", "Who wrote Ubik?", "work"),
        ("Acme Corp", "Where are the headquarters of Acme Corp?", "company"),
        ("Ada Lovelace", "Ada Lovelace liked", "person"),
        ("zorb", "I like zorb", ""),
    ],
)
def test_the_kind_of_a_subject(subject: str, prompt: str, kind: str) -> None:
    assert kind_of(subject, prompt) == kind


def test_others_are_of_the_kind_and_not_the_subject() -> None:
    found = others("Australia", "What is the capital of Australia?", 4)
    assert len(set(found)) == 4
    assert set(found) <= set(known()["country"]) - {"Australia"}
    assert found == others("Australia", "What is the capital of Australia?", 4)
    assert found != others("Australia", "What is the currency of Australia?", 4)


def test_names_that_share_a_word_with_the_subject_are_left_out() -> None:
    found = others("South Korea", "What is the capital of South Korea?", 60)
    assert "South Africa" not in found
    assert len(found) > 40


def test_an_unknown_kind_gets_a_mixture() -> None:
    found = others("zorb", "I like zorb", 4)
    kinds = [next(k for k, names in known().items() if name in names) for name in found]
    assert kinds == ["person", "country", "company", "city"]


def test_the_packaged_names_are_distinct() -> None:
    for kind, names in known().items():
        assert len(names) >= 8, kind
        assert len({normalise(n) for n in names}) == len(names), kind
