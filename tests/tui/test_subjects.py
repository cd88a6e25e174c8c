"""Which candidate is taken for the subject without asking."""

from __future__ import annotations

import json

import pytest

from engine.paths import packaged
from engine.subject import Span, candidates
from tui.subjects import ordered


def taken(question: str) -> str:
    """The subject of a question by its words alone; "" when it would be asked for."""
    found, clear = ordered(candidates(question))
    return found[0].text if clear else ""


def test_of_the_forty_questions_of_the_chat_benchmark_one_is_asked_back() -> None:
    lines = packaged("chat_corrections.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    missed = {
        row["question"]: taken(row["question"])
        for row in rows
        if taken(row["question"]) != row["subject"].removeprefix("The ")
    }
    assert len(rows) == 40
    assert missed == {"Which organ makes insulin?": ""}


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What is the symbol for gold in the table of Mendeleev?", "Mendeleev"),  # names first
        ("What is the boiling point of water?", "water"),
        ("What colour is the sky?", "sky"),
        ("Where is the beginning of the end of the story?", ""),  # of the end, of the story
    ],
)
def test_names_then_what_is_asked_about(question: str, wanted: str) -> None:
    assert taken(question) == wanted


def test_what_the_answer_hangs_on_decides_between_equals() -> None:
    one, two = Span("end", 0, 1.0, about=True), Span("story", 9, 0.5, about=True)
    ranked, clear = ordered([one, two, Span("beginning", 20, 0.9)])
    assert (ranked[0], clear) == (one, True)
    assert ordered([one, Span("story", 9, 0.9, about=True)])[1] is False
