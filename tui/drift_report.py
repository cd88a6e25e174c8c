"""What came of doing a recording again, as lines of text and as JSON. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .console import printable
from .drift import Difference
from .executing import Done, Report
from .narrate import count
from .tape import MARKS, Act
from .texts import clip

WORDS = {
    "identical": "identical",
    "close": "within tolerance",
    "drifted": "DRIFTED",
    "failed": "FAILED",
    "skipped": "not done again",
}
SHOWN = 5  # differences of an act that are written out


def before(differences: tuple[Difference, ...], same_model: bool) -> list[str]:
    """In what this run differs from the recorded one to begin with."""
    lines = [f"differs: {d.where}: {_value(d.recorded)} → {_value(d.found)}" for d in differences]
    if not same_model:
        lines.append(
            "This is another model: the recorded patches do not fit it, every edit is computed "
            "anew, and its numbers will differ."
        )
    return [printable(line) for line in lines]


def lines(report: Report) -> list[str]:
    """Each act with what became of it, and the sum."""
    found = [line for done in report.done for line in _lines(done)]
    counts = {word.lower(): report.count(state) for state, word in WORDS.items()}
    parts = [f"{n} {word}" for word, n in counts.items() if n]
    n = sum(done.n for done in report.done)
    total = f"{count(len(report.done), 'act')}: {', '.join(parts) or 'nothing to do'}"
    found.append(f"{total} ({count(n, 'value')} compared, tolerance {report.tolerance:g})")
    return [printable(line) for line in found]


def title(act: Act) -> str:
    """An act in a line."""
    if act.kind == "correct":
        request = act.edit.request if act.edit else {}
        about = request.get("subject") or act.question
        method = act.edit.method if act.edit else "?"
        return f"edit #{act.number} ({method}): {clip(about, 60)} → {request.get('target_new', '')}"
    if act.kind in MARKS:
        return f"{act.kind} of edit #{act.number}"
    return f"{act.kind}: {clip(act.question or act.text, 80)}".rstrip(": ")


def _lines(done: Done) -> list[str]:
    what = WORDS[done.state]
    if done.why:
        what += f": {done.why}"
    elif done.state == "close" and done.largest is not None:
        what += f": at most {done.largest.size:.2g} ({done.largest.where})"
    found = [f"{title(done.act)}", f"  {what}"]
    shown = sorted(done.drifts, key=lambda d: -d.size)[:SHOWN]
    found += [f"  - {_difference(each)}" for each in shown]
    if len(done.drifts) > SHOWN:
        found.append(f"  - and {count(len(done.drifts) - SHOWN, 'more value')}")
    if done.stored is not None:
        same = "the answer is the recorded one" if done.stored else "the answer differs too"
        found.append(f"  With the recorded patches {same}.")
    return found


def _difference(each: Difference) -> str:
    size = f", off by {each.size:.2g}" if math.isfinite(each.size) else ""
    return f"{each.where}: {_value(each.recorded)} → {_value(each.found)}{size}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(clip(text, 60)) if isinstance(value, str) and " " in text else clip(text, 60)


# -- JSON ---------------------------------------------------------------------------------------


def as_object(report: Report, session: str, source: str, seconds: float) -> dict[str, Any]:
    """Everything; sizes that are infinite (words that differ) are null."""
    return {
        "session": session,
        "source": source,
        "same_model": report.same_model,
        "differences": [_plain(each) for each in report.differences],
        "tolerance": report.tolerance,
        "drifted": report.drifted,
        "counts": {state: report.count(state) for state in WORDS},
        "compared": sum(done.n for done in report.done),
        "acts": [_act(done) for done in report.done],
        "seconds": seconds,
    }


def _act(done: Done) -> dict[str, Any]:
    return {
        "kind": done.act.kind,
        "question": done.act.question,
        "edit": done.act.edit.id if done.act.edit else None,
        "state": done.state,
        "why": done.why,
        "compared": done.n,
        "drifts": [_plain(each) for each in done.drifts],
        "largest": _plain(done.largest) if done.largest else None,
        "with_recorded_patches": done.stored,
    }


def _plain(each: Difference) -> dict[str, Any]:
    return dataclasses.asdict(each)
