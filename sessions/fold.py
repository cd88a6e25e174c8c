"""The edits that are active at a node: what walking from the root to it gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """Ids of edits. active: in the order they apply; undone: the next one to redo is last."""

    active: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One node's effect: `edit` for edit, undo, redo and drop, `state` for carry."""

    kind: str
    edit: str = ""
    state: State | None = None


def fold(steps: Iterable[Step], start: State = State()) -> State:
    """The state after these steps. Every step is idempotent; messages have no effect.

    edit   adds, and nothing undone before can be redone
    undo   removes the named edit; so does drop
    redo   puts the named edit back, as the last one
    carry  sets the state: what was active at the tip from which a branch was taken
    """
    state = start
    for step in steps:
        if step.kind == "edit":
            state = State(_with(state.active, step.edit))
        elif step.kind in ("undo", "drop"):
            undone = _with(state.undone, step.edit)
            state = State(_without(state.active, step.edit), undone)
        elif step.kind == "redo":
            undone = _without(state.undone, step.edit)
            state = State(_with(state.active, step.edit), undone)
        elif step.kind == "carry" and step.state is not None:
            state = step.state
    return state


def _with(edits: tuple[str, ...], edit: str) -> tuple[str, ...]:
    return edits if edit in edits else (*edits, edit)


def _without(edits: tuple[str, ...], edit: str) -> tuple[str, ...]:
    return tuple(e for e in edits if e != edit)
