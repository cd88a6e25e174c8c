"""Differences of words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.worddiff import GONE, NEW, SAME, differences, marked, word_diff

WORDS = st.lists(st.sampled_from(["a", "b", "c", "Sydney.", "−", "[/b]"]), max_size=12)


@pytest.mark.parametrize(
    ("a", "b", "left", "right", "count"),
    [
        ("in Sydney.", "in Canberra.", "in −Sydney.", "in +Canberra.", 1),
        ("the same", "the same", "the same", "the same", 0),
        ("", "new words", "", "+new +words", 2),
        ("all gone", "", "−all −gone", "", 2),
        ("a b c", "a c", "a −b c", "a c", 1),
        ("It is Sydney", "Canberra", "−It −is −Sydney", "+Canberra", 3),
        ("two  blanks\nand lines", "two blanks and lines", "two blanks and lines", None, 0),
    ],
)
def test_what_differs_is_marked(a: str, b: str, left: str, right: str | None, count: int) -> None:
    marked_a, marked_b = word_diff(a, b)
    assert marked(marked_a) == left
    assert marked(marked_b) == (left if right is None else right)
    assert differences(a, b) == count


@given(WORDS, WORDS)
def test_every_word_is_there_once_and_what_is_unmarked_is_common(
    a: list[str], b: list[str]
) -> None:
    left, right = word_diff(" ".join(a), " ".join(b))
    assert [w.text for w in left] == a
    assert [w.text for w in right] == b
    common = [w.text for w in left if w.mark == SAME]
    assert common == [w.text for w in right if w.mark == SAME]
    assert {w.mark for w in left} <= {SAME, GONE}
    assert {w.mark for w in right} <= {SAME, NEW}


@given(WORDS)
def test_a_text_does_not_differ_from_itself(words: list[str]) -> None:
    assert differences(" ".join(words), " ".join(words)) == 0


def test_frequent_words_of_a_long_answer_are_not_noise() -> None:
    a = " ".join(["the cat sat"] * 120)
    assert differences(a, a + " down") == 1
