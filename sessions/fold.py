"""What holds at a node, as walking from the root to it gives it: edits, forgotten messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class State:
    """Ids of edits and of messages.

    active     edits in the order they apply
    undone     edits that can be redone; the next one is last
    forgotten  nodes of messages that are no part of the conversation
    """

    active: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One node's effect.

    edit     of edit, undo, redo and drop
    message  node of the message, of forget and remember
    state    of carry
    """

    kind: str
    edit: str = ""
    state: State | None = None
    message: str = ""


def fold(steps: Iterable[Step], start: State = State()) -> State:
    """The state after these steps. Every step is idempotent; messages have no effect.

    edit      adds, and nothing undone before can be redone
    undo      removes the named edit; so does drop
    redo      puts the named edit back, as the last one
    forget    leaves the named message out; remember takes it back in
    carry     sets the state: what held at the tip from which a branch was taken
    """
    state = start
    for step in steps:
        if step.kind == "edit":
            state = replace(state, active=_with(state.active, step.edit), undone=())
        elif step.kind in ("undo", "drop"):
            active, undone = _without(state.active, step.edit), _with(state.undone, step.edit)
            state = replace(state, active=active, undone=undone)
        elif step.kind == "redo":
            active, undone = _with(state.active, step.edit), _without(state.undone, step.edit)
            state = replace(state, active=active, undone=undone)
        elif step.kind == "forget":
            state = replace(state, forgotten=_with(state.forgotten, step.message))
        elif step.kind == "remember":
            state = replace(state, forgotten=_without(state.forgotten, step.message))
        elif step.kind == "carry" and step.state is not None:
            state = step.state
    return state


def superseded(active: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Per superseded edit of `active` the last active one that supersedes it.

    names: per edit the ids of those it supersedes, which do not act while it is active. What
    is not in the result acts on the model. The engine's ledger has the same rule.
    """
    return {old: edit for edit in active for old in names.get(edit, ()) if old in active}


def _with(ids: tuple[str, ...], one: str) -> tuple[str, ...]:
    return ids if one in ids else (*ids, one)


def _without(ids: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(i for i in ids if i != one)
