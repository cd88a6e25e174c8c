"""Going back in a conversation: undo, branches, other sessions. The engine's thread only.

Nothing is lost by it: the record only grows, and what is active is what its path says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from engine.errors import BadInput
from engine.events import EditUndone, Event
from sessions.rows import Node

from .opening import ledger_at
from .timeline import Turn, around, mark, turns_at
from .views import EditView, Moved, UndoPlan, UndoView

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.ledger import Ledger

    from .conversation import Conversation


class Past:
    """What a conversation can do with what it has done."""

    def __init__(self, conversation: Conversation) -> None:
        self._of = conversation

    def undo(self) -> Generator[Event, None, UndoView]:
        return (yield from self._move("undo", lambda ledger: ledger.undo()))

    def redo(self) -> Generator[Event, None, UndoView]:
        return (yield from self._move("redo", lambda ledger: ledger.redo()))

    def drop(self, edit_id: str) -> Generator[Event, None, UndoView]:
        return (yield from self._move("drop", lambda ledger: ledger.drop(edit_id)))

    def _move(
        self, action: str, change: Callable[[Ledger], Edit]
    ) -> Generator[Event, None, UndoView]:
        """Change the ledger and the record, or neither; go back to the answer it belongs to."""
        of = self._of
        _, ledger = of.ready()
        trial = type(ledger)(ledger.edits, ledger.undone)
        edit = change(trial)
        fingerprint = trial.fingerprint()
        store, session = of.recorder.required()
        turns = mark(store, session, action, edit.id, fingerprint, of.turns)
        before = [e.id for e in ledger.acting]
        change(ledger)
        after = [e.id for e in ledger.acting]
        moved = turns != of.turns
        of.turns = turns
        yield EditUndone(edit=edit.id, action=action, active=len(after), ledger=fingerprint)
        views = {view.id: view for view in of.edits()}
        return UndoView(
            action=action,
            edit=views[edit.id],
            answer_now=turns[-1].answer if moved and turns else "",
            active=tuple(views[id] for id in after),
            back=tuple(views[id] for id in after if id not in (*before, edit.id)),
            out=tuple(views[id] for id in before if id not in (*after, edit.id)),
        )

    # -- to another place of the tree --------------------------------------------------------

    def branch(self, node: str) -> Generator[Event, None, Moved]:
        """Stand at a message, with the edits in force there; what comes next is a new branch.

        The edits are in memory before the tip moves. Raises BadInput, SessionError.
        """
        of = self._of
        _, ledger = of.ready()
        store, session = of.recorder.required()
        found = _node(store.nodes(session), node)
        if found.kind != "message":
            raise BadInput("a branch begins at a question or an answer.", "Choose one of those.")
        at = ledger_at(store, store.session(session), found.id, (*ledger.edits, *ledger.undone))
        turns = turns_at(store, session, found.id)
        store.move_tip(session, found.id)
        of.ledger, of.turns = at, turns
        yield from ()
        return self._moved("branch")

    def plan(self, node: str) -> Generator[Event, None, UndoPlan]:
        """What `undo_to` will do. Changes nothing. Raises BadInput, SessionError."""
        of = self._of
        _, ledger = of.ready()
        store, session = of.recorder.required()
        nodes = store.nodes(session)
        place: str | None = _node(nodes, node).id
        edit = next((e for e in store.edits(session) if e.node == place), None)
        if edit is not None:  # to the side of it on which it had not been made
            place = around(store, session, edit).before
        there = [row.id for row in store.active_edits(session, place)] if place else []
        views = {view.id: view for view in of.edits()}
        turns = turns_at(store, session, place) if place else of.turns
        now = [e.id for e in ledger.edits]
        yield from ()
        return UndoPlan(
            node=place,
            edits=tuple(views[i] for i in reversed(now) if i not in there),
            leaving=_leaving(of.turns, turns),
            absent=tuple(views[i] for i in there if i not in now),
        )

    def undo_to(self, node: str) -> Generator[Event, None, Moved]:
        """Take off every edit that was not in force at a place, the last one first; stand there.

        Each edit is taken off in ledger and record, or in neither; between two the job can be
        stopped. Redo puts them back one by one. Raises BadInput, SessionError.
        """
        of = self._of
        plan = yield from self.plan(node)
        if not plan.edits:
            raise BadInput("no edit was made since.", "Branch from there to go on from it.")
        _, ledger = of.ready()
        store, session = of.recorder.required()
        parent = plan.node
        for view in plan.edits:
            trial = type(ledger)(ledger.edits, ledger.undone)
            trial.drop(view.id)
            store.add_mark(session, "undo", view.id, parent=parent, ledger_hash=trial.fingerprint())
            ledger.drop(view.id)
            parent = None
            if plan.node is not None:
                of.turns = turns_at(store, session)
            yield EditUndone(
                edit=view.id, action="undo", active=len(trial.acting), ledger=trial.fingerprint()
            )
        return self._moved("undo_to", plan.edits)

    def open(self, ref: str) -> Generator[Event, None, Moved]:
        """Go on with another session of this model. Raises BadInput, SessionError."""
        of = self._of
        lm, ledger = of.ready()
        store = of.recorder.check()
        session = store.session(ref)
        name = session.title or session.short
        if session.id == of.recorder.session_id:
            raise BadInput(f"session {name} is open already.")
        if session.model.fingerprint != lm.fingerprint:
            raise BadInput(
                f"session {name} was made with another model ({session.model.name}).",
                f"llm-edit chat --session {session.short} opens it.",
            )
        at = ledger_at(store, session, None, (*ledger.edits, *ledger.undone))
        turns = turns_at(store, session.id)
        of.recorder.resume(session)
        of.ledger, of.turns, of.method = at, turns, session.method
        yield from ()
        return self._moved("open")

    def _moved(self, action: str, undone: tuple[EditView, ...] = ()) -> Moved:
        of = self._of
        session = of.recorder.session
        views = {view.id: view for view in of.edits()}
        _, ledger = of.ready()
        return Moved(
            action=action,
            turns=len(of.turns),
            active=tuple(views[e.id] for e in ledger.acting),
            undone=tuple(views[e.id] for e in undone),
            title=(session.title or session.short) if session else "",
            answered=not of.turns or bool(of.turns[-1].answer),
        )


def _node(nodes: Sequence[Node], ref: str) -> Node:
    """A node by its id, or by 4 or more characters of the end of it. Raises BadInput."""
    low = ref.casefold()
    found = [n for n in nodes if n.id == ref or (len(ref) >= 4 and n.id.casefold().endswith(low))]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{ref!r} could be {len(found)} messages.", "Give more of its id.")
    raise BadInput(f"there is no message {ref!r} in this session.", "/history lists them.")


def _leaving(now: Sequence[Turn], then: Sequence[Turn]) -> int:
    """How many messages of the one conversation the other does not have."""
    kept = {node for turn in then for node in (turn.user, turn.node)}
    return sum(1 for t in now for node in (t.user, t.node) if node and node not in kept)
