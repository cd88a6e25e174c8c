"""Commands about edits: taking them off and putting them back, listing them."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import BadInput, UnknownName

from .registry import Command, Front
from .views import EditView, Snapshot

STANDING = ("applied", "superseded")  # states of edits that can be dropped
FINISHED = (*STANDING, "undone", "elsewhere")  # states of edits that were made
MARKS = {
    "applied": "on", "undone": "undone", "failed": "failed", "cancelled": "stopped",
    "interrupted": "interrupted", "running": "running", "elsewhere": "other branch",
    "superseded": "superseded",
}  # fmt: skip
EDIT_HEAD = ("#", "state", "method", "fact", "took")
FIT = "100"  # steps of `/resolve fit`


def counted(argument: str) -> int:
    """A number from 1 on; 1 for "". Raises BadInput."""
    if argument and not (argument.isdigit() and int(argument)):
        raise BadInput(f"{argument!r} is no number from 1 on.")
    return int(argument or 1)


def edit_row(edit: EditView) -> tuple[str, ...]:
    """A line of `/edits`."""
    took = ("yes" if edit.success else "no") if edit.state in FINISHED else ""
    return str(edit.number), state_words(edit), edit.method, edit.fact, took


def state_words(edit: EditView) -> str:
    return f"superseded by #{edit.superseded_by}" if edit.superseded_by else MARKS[edit.state]


def about(edit: EditView) -> list[str]:
    """What an edit did, a sentence a line."""
    head = f"Edit #{edit.number} ({edit.method}, {state_words(edit)}): {edit.question}"
    lines = [head, f"Right answer: {edit.target}"]
    lines += [f"Subject: {edit.subject}"] if edit.subject else []
    if edit.verdict:
        before, after = (" ".join(t.split()) for t in (edit.answer_before, edit.answer_after))
        lines += [f"Before: {before}", f"After: {after}", edit.verdict]
    return lines


# -- availability and arguments ----------------------------------------------------------------


def no_active(snapshot: Snapshot) -> str:
    return "" if snapshot.active or snapshot.busy else "there is no edit to undo."


def _no_undone(snapshot: Snapshot) -> str:
    undone = any(e.state == "undone" for e in snapshot.edits)
    return "" if undone or snapshot.busy else "there is no edit to redo."


def _none_to_solve(snapshot: Snapshot) -> str:
    return "" if snapshot.active or snapshot.busy else "there is no edit to solve again."


def _no_edits(snapshot: Snapshot) -> str:
    return "" if snapshot.edits else "nothing was edited in this session."


def _numbers(edits: Iterable[EditView]) -> list[tuple[str, str]]:
    return [(str(e.number), e.fact) for e in edits]


def _all(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return _numbers(snapshot.edits)


def _standing(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return _numbers(e for e in snapshot.edits if e.state in STANDING)


def _last(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    """How many edits `/undo` can take off, with the one it then ends with."""
    standing = [e for e in snapshot.edits if e.state in STANDING]
    return (
        (str(n), f"back to before edit #{e.number} ({e.fact})")
        for n, e in enumerate(reversed(standing), start=1)
    )


# -- handlers ----------------------------------------------------------------------------------


def _undo(front: Front, argument: str) -> None:
    front.run(front.assistant.undo(counted(argument)))


def _redo(front: Front, argument: str) -> None:
    front.run(front.assistant.redo(counted(argument)))


def _drop(front: Front, argument: str) -> None:
    snapshot = front.assistant.snapshot()
    edit = _chosen(argument, (e for e in snapshot.edits if e.state in STANDING), "active edit")
    front.run(front.assistant.drop(edit.id))


def _resolve(front: Front, argument: str) -> None:
    word, _, steps = argument.partition(" ")
    if word == "fit":
        hp = {"fit": str(counted(steps.strip() or FIT))}
    else:
        hp = {"again": str(counted(argument))} if argument else {}
    front.run(front.assistant.resolve(hp))


def _edits(front: Front, argument: str) -> None:
    edits = front.assistant.snapshot().edits
    if argument:
        front.show(about(_chosen(argument, edits, "edit")))
    else:
        front.table(EDIT_HEAD, [edit_row(e) for e in edits])


def _chosen(argument: str, edits: Iterable[EditView], what: str) -> EditView:
    """The edit with this number, written 3 or #3. Raises UnknownName."""
    by_number = {str(e.number): e for e in edits}
    number = argument.removeprefix("#")
    if number not in by_number:
        raise UnknownName(what, argument, by_number)
    return by_number[number]


COMMANDS = (
    Command(name="undo", argument="[N]", handler=_undo, complete=_last, unavailable=no_active,
            help="take the last edit off, or the last N, exactly"),
    Command(name="redo", argument="[N]", handler=_redo, unavailable=_no_undone,
            help="put the last undone edit back, or the last N"),
    Command(name="drop", argument="N", handler=_drop, complete=_standing, unavailable=no_active,
            help="take edit N off and leave the others"),
    Command(name="resolve", argument="[N|fit]", handler=_resolve, unavailable=_none_to_solve,
            help="solve the edits again as one; N: rounds for facts not said; fit: many facts"),
    Command(name="edits", argument="[N]", handler=_edits, complete=_all, unavailable=_no_edits,
            help="list the edits of this session, or say what edit N did"),
)  # fmt: skip
