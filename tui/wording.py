"""What happened to edits, in sentences: the same in every front end."""

from __future__ import annotations

from collections.abc import Sequence

from engine.ledger import RESOLVED

from .narrate import count
from .views import CorrectionView, EditView, UndoView

DONE = {"undo": "undone", "redo": "put back", "drop": "dropped"}


def named(edit: EditView) -> str:
    return f"edit #{edit.number} ({edit.fact})"


def moved(action: str, numbers: Sequence[int], others: str = "", answer: str = "") -> str:
    """What an undo, redo or drop did.

    numbers  of the edits, in the order in which they were moved
    others   what it did to other edits: `shifted`
    answer   that stands at the end of the conversation because of it
    """
    names = ", ".join(f"#{number}" for number in numbers)
    exact = "" if action == "redo" else ", exactly"
    done = f"{_they(numbers, 'Edit', 'Edits')} {names} {DONE[action]}{exact}."
    now = f"The answer is now: {answer}" if answer else ""
    return " ".join(filter(None, (done, others, now)))


def superseding(view: CorrectionView) -> str:
    """Which earlier edits a correction replaces; "" for none."""
    if not view.superseded:
        return ""
    number, names = view.edit.number, _all_named(view.superseded)
    did = f"supersedes {names}, made for the same question"
    if view.edit.method == RESOLVED:
        did = f"holds the facts of {names}"
    verb = _they(view.superseded, "does", "do")
    return f"It {did}, which {verb} not act while #{number} stands."


def shifted(view: UndoView) -> str:
    """Which other edits act again, or no more, after an undo, redo or drop; "" for none."""
    sentences = []
    if view.back:
        verb = _they(view.back, "acts", "act")
        sentences.append(f"{_begun(_all_named(view.back))} {verb} again.")
    for number in sorted({edit.superseded_by for edit in view.out}):
        edits = [edit for edit in view.out if edit.superseded_by == number]
        verb, names = _they(edits, "is", "are"), _begun(_all_named(edits))
        sentences.append(f"{names} {verb} superseded by #{number} again.")
    return " ".join(sentences)


def remaining(active: Sequence[EditView]) -> str:
    if not active:
        return "No edits remain."
    verb = _they(active, "remains", "remain")
    return f"{count(len(active), 'edit')} {verb}: {', '.join(f'#{e.number}' for e in active)}."


def _all_named(edits: Sequence[EditView]) -> str:
    return " and ".join(named(edit) for edit in edits)


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _they(edits: Sequence[object], one: str, more: str) -> str:
    return one if len(edits) == 1 else more
