"""When two answers are the same, and when an edit has worked. Text only; imports no torch."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable

HEAD_WORDS = 12

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_END = re.compile(r"[.!?](?=[\"'”’)\]]*(\s|$))|\n|[。！？]")
# A full stop after one of these, or after a single capital, does not end a sentence.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(.\"'“])(?:\w|mr|mrs|ms|dr|st|mt|jr|sr|prof|gen|vs|inc|ltd|co|e\.g|i\.e|etc)$",
    re.IGNORECASE,
)


def normalise(text: str, *, punctuation: str = "") -> str:
    """SQuAD's normal form: lower case, no punctuation, no English articles, single spaces.

    punctuation   what each punctuation mark becomes: "" as SQuAD has it, or " "
    Unicode is composed (NFC) and case-folded; the punctuation of every script counts. A text
    of nothing but articles and punctuation ("The The", "!!!") keeps them, so that no two such
    texts compare as equal by both being empty.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    bare = "".join(punctuation if _is_punctuation(c) else c for c in folded)
    kept = " ".join(_ARTICLES.sub(" ", bare).split())
    return kept or " ".join(bare.split()) or " ".join(folded.split())


def head(answer: str) -> str:
    """The first sentence of an answer, at most 12 words of it.

    Words are counted, not a model's tokens, so that the heads of two models compare.
    """
    return " ".join(first_sentence(answer).split()[:HEAD_WORDS])


def first_sentence(text: str) -> str:
    """Up to the first sentence end or line break; "J. R. R.", "St." and "1.5" do not end one."""
    stripped = text.strip()
    for found in _END.finditer(stripped):
        before = stripped[: found.start()]
        if found.group().startswith(".") and _abbreviated(before, stripped[found.end() :]):
            continue
        return stripped[: found.end()].strip()
    return stripped


def same_head(before: str, after: str) -> bool:
    """Whether an answer kept its head, in normal form."""
    return normalise(head(before)) == normalise(head(after))


def equals(answer: str, target: str) -> bool:
    """The rule for chat answers: the whole answer is the target, in normal form."""
    return normalise(answer) == normalise(target)


def begins_with(continuation: str, target: str) -> bool:
    """The rule for statements: the continuation begins with the target, in normal form.

    It has to begin with whole words ("Parisian" does not begin with "Paris"), except in
    scripts written without spaces. Punctuation may join words or part them ("soccer/football"
    begins with "soccer", "U.S. Army" with "US").
    """
    for mark in ("", " "):
        text, wanted = (normalise(t, punctuation=mark) for t in (continuation, target))
        rest = text[len(wanted) :]
        if wanted and text.startswith(wanted) and (not rest or _parts(wanted[-1], rest[0])):
            return True
    return False


def mentions(text: str, aliases: Iterable[str]) -> bool:
    """Whether any alias occurs in the text as whole words, in normal form."""
    for mark in ("", " "):
        words = f" {normalise(text, punctuation=mark)} "
        if any(f" {normalise(a, punctuation=mark)} " in words for a in aliases):
            return True
    return False


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _abbreviated(before: str, after: str) -> bool:
    """Whether the full stop between `before` and `after` belongs to an abbreviation.

    At the end of the text it does not matter; a single letter is an initial only when it is
    a capital ("J. R. R. Tolkien", not "vitamin c. It").
    """
    found = _ABBREVIATION.search(before)
    if not found or not after.strip():
        return False
    word = found.group().strip(" (.\"'“\t")
    return len(word) > 1 or word.isupper()


def _parts(last: str, following: str) -> bool:
    """Whether a word can end between these two characters."""
    return following == " " or unspaced(last) or unspaced(following)


def unspaced(char: str) -> bool:
    """Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces."""
    name = unicodedata.name(char, "")
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    return name.startswith(scripts)
