"""Which of the possible subjects of a question is meant, when the person did not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

AHEAD = 1.25  # the first score over the second, to be taken without asking

JOINERS = frozenset(  # small words inside names
    ("of", "the", "and", "de", "la", "le", "van", "von", "der", "den", "del", "da", "di", "du")
)


class Span(Protocol):
    """`engine.subject.Span`, which is not imported here because its module imports torch."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def about(self) -> bool: ...


def ordered(spans: Sequence[Span]) -> tuple[list[Span], bool]:
    """The spans, the likeliest first, and whether it may be taken without asking.

    spans  ranked by how much the answer hangs on them, best first
    A proper name goes before common words: a noised "capital" costs the answer as much as a
    noised "Australia", but a fact is about the latter. Of names within names the longest counts.
    Where there are no names it is what something is asked *of*: the symbol for gold.
    """
    names = [s for s in spans if _is_name(s)]
    names = [s for s in names if not any(o is not s and s.text in o.text for o in names)]
    pool = names or [s for s in spans if s.about] or list(spans)
    rest = [s for s in spans if s not in pool]
    clear = len(pool) == 1 or (
        len(pool) > 1 and pool[0].score > 0 and pool[0].score >= AHEAD * pool[1].score
    )
    return [*pool, *rest], clear


def _is_name(span: Span) -> bool:
    """Words that are all capitalised or hold a digit, joiners apart ("Lord of the Rings").

    The first word of the text is capitalised anyway, and tells nothing.
    """
    words = [w for w in span.text.split() if w not in JOINERS]
    marked = [any(c.isupper() or c.isdigit() for c in w) for w in words]
    return bool(marked) and all(marked) and (span.start > 0 or len(words) > 1)
