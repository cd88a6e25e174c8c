"""Which words of two texts differ. Marked with − and +, so that no colour is needed to see it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

SAME, GONE, NEW = "", "−", "+"  # of B: the same as in A, only in A, only in B


@dataclass(frozen=True)
class Word:
    """A word and its mark. `text` has no blanks in it."""

    text: str
    mark: str = SAME

    def __str__(self) -> str:
        return self.mark + self.text


def word_diff(a: str, b: str) -> tuple[list[Word], list[Word]]:
    """The words of `a`, those that `b` has not marked −; and of `b`, those new in it marked +.

    Words are what blanks separate; case and punctuation count.
    """
    left, right = a.split(), b.split()
    # autojunk would take words that are frequent in long answers for noise.
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    marked_a: list[Word] = []
    marked_b: list[Word] = []
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        same = kind == "equal"
        marked_a += [Word(word, SAME if same else GONE) for word in left[a0:a1]]
        marked_b += [Word(word, SAME if same else NEW) for word in right[b0:b1]]
    return marked_a, marked_b


def marked(words: list[Word]) -> str:
    """One line, with the marks."""
    return " ".join(map(str, words))


def differences(a: str, b: str) -> int:
    """How many words differ, on the side where more do."""
    left, right = word_diff(a, b)
    return max(sum(w.mark == GONE for w in left), sum(w.mark == NEW for w in right))
