"""The states of the live model that can be compared: sets of edits, each with a name.

A state is written as one word, by people and by screens alike:

    unedited          the model as it was loaded
    now               with the edits that are in force
    #N                as it was right after edit N of this session
    @SESSION          as another session of the same model stands (title, id, part of an id)
    @SESSION/NODE     as it was at a node of a session
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import BadInput, UnknownName
from sessions.rows import Session

from .narrate import count
from .opening import ledger_at

if TYPE_CHECKING:
    from engine.edit import Edit
    from sessions.store import Store

    from .conversation import Conversation

UNEDITED, NOW = "unedited", "now"
OTHERS = 20  # other sessions that are offered


@dataclass(frozen=True)
class StateView:
    """A state by the word that names it, in words, and by the ids of its edits in order."""

    ref: str
    label: str
    edits: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """A state with the edits that act in it, in memory."""

    view: StateView
    edits: tuple[Edit, ...]


def is_state(word: str) -> bool:
    """Whether a word has the form of a state."""
    return word.lower() in (UNEDITED, NOW) or bool(re.fullmatch(r"#\d+|@\S+", word))


def resolve(conversation: Conversation, ref: str) -> State:
    """The state that a word names.

    Raises BadInput, UnknownName, SessionError, CorruptTensors.
    """
    _, ledger = conversation.ready()
    if ref.lower() == UNEDITED:
        return State(StateView(UNEDITED, "the unedited model"), ())
    if ref.lower() == NOW:
        label = f"now ({count(len(ledger.acting), 'edit')})"
        return State(StateView(NOW, label, tuple(e.id for e in ledger.acting)), ledger.acting)
    if ref.startswith("#"):
        return _after_edit(conversation, ref)
    if ref.startswith("@"):
        return _of_session(conversation, ref)
    raise UnknownName("state", ref, (UNEDITED, NOW, "#1", "@SESSION"))


def _after_edit(conversation: Conversation, ref: str) -> State:
    number = ref[1:]
    views = {str(e.number): e for e in conversation.edits() if e.state in _MADE}
    if number not in views:
        raise UnknownName("edit", ref, (f"#{n}" for n in views))
    store, session = conversation.recorder.required()
    edit = views[number]
    node = store.edit(edit.id).node
    label = f"after edit #{number}: {edit.fact}"
    return _state(conversation, store, store.session(session), node, ref, label)


_MADE = ("applied", "superseded", "undone", "elsewhere")


def _of_session(conversation: Conversation, ref: str) -> State:
    lm, _ = conversation.ready()
    name, _, node = ref[1:].rpartition("/") if _has_node(ref) else (ref[1:], "", "")
    store = conversation.recorder.check()
    session = store.session(name)
    title = session.title or session.short
    if session.model.fingerprint != lm.fingerprint:
        raise BadInput(
            f"session {title} was made with another model ({session.model.name}).",
            "Only states of one model can be compared.",
        )
    label = f"session {title}" + (" at the chosen place" if node else "")
    return _state(conversation, store, session, node or None, ref, label)


def _has_node(ref: str) -> bool:
    """Whether a reference ends with the id of a node (26 letters and digits)."""
    return bool(re.search(r"/[0-9A-Za-z]{26}$", ref))


def _state(
    conversation: Conversation, store: Store, session: Session, node: str | None, ref: str,
    label: str,
) -> State:  # fmt: skip
    _, ledger = conversation.ready()
    at = ledger_at(store, session, node, (*ledger.edits, *ledger.undone))
    ids = tuple(edit.id for edit in at.acting)
    if ref.startswith("@"):
        label += f" ({count(len(ids), 'edit')})"
    return State(StateView(ref, label, ids), at.acting)


def choices(conversation: Conversation) -> Iterator[StateView]:
    """The states worth offering: without edits, after each edit, now, other sessions."""
    lm, ledger = conversation.ready()
    yield StateView(UNEDITED, "the unedited model")
    for edit in conversation.edits():
        if edit.state in _MADE:
            yield StateView(f"#{edit.number}", f"after edit #{edit.number}: {edit.fact}")
    yield StateView(NOW, f"now ({count(len(ledger.acting), 'edit')})")
    store = conversation.recorder.store
    rows = store.sessions() if store is not None else []
    others = [
        row
        for row in rows
        if row.edits
        and row.model.fingerprint == lm.fingerprint
        and row.id != conversation.recorder.session_id
    ]
    for row in others[:OTHERS]:
        label = f"session {row.title or row.short} ({count(row.edits, 'edit')})"
        yield StateView(f"@{row.id}", label)
