"""A comparison in words, for the plain prompt; and the pieces that the screen shares."""

from __future__ import annotations

from engine.compare import Reading

from .compare import CompareRow, CompareView
from .texts import visible
from .worddiff import differences, marked, word_diff

KINDS = {
    "asked": "edited", "rephrased": "rephrased", "neighbour": "neighbour", "free": "typed",
}  # fmt: skip


def verdict(row: CompareRow) -> str:
    """Whether the two answers differ, in words; "" while one is missing."""
    if row.a is None or row.b is None:
        return "…"
    words = differences(row.a.answer, row.b.answer)
    if not words:
        return "= same"
    return f"≠ {words} word{'s' if words > 1 else ''} differ{'' if words > 1 else 's'}"


def token(text: str) -> str:
    """A token between quotes, so that its blanks are seen."""
    return f"“{visible(text).replace(chr(10), '⏎')}”"


def percent(p: float) -> str:
    """Enough digits to tell small chances from none."""
    return f"{100 * p:.1f} %" if p >= 0.0005 else f"{100 * p:.1g} %"


def plain_lines(view: CompareView) -> list[str]:
    """The whole comparison; next tokens of what was edited and of what was typed."""
    lines = [f"A: {view.a.label}", f"B: {view.b.label}"]
    if view.same_edits:
        lines.append("A and B are the same state.")
    if not view.rows:
        return [*lines, "There is nothing to ask: no edit tells them apart. /compare PROMPT"]
    for row in view.rows:
        lines += ["", f"{KINDS[row.prompt.kind]}: {row.prompt.text}  [{verdict(row)}]"]
        if row.a is None or row.b is None:
            continue
        a, b = word_diff(row.a.answer, row.b.answer)
        lines += [f"A: {marked(a)}", f"B: {marked(b)}"]
        if row.prompt.kind in ("asked", "free"):
            lines += [f"A next: {_tokens(row.a)}", f"B next: {_tokens(row.b)}"]
    return lines


def _tokens(reading: Reading) -> str:
    return ", ".join(f"{token(text)} {percent(p)}" for text, p in reading.top)
