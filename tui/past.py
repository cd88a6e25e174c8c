"""Going back in a conversation: undo, branches, other sessions. The engine's thread only.

Nothing is lost by it: the record only grows, and what is active is what its path says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from engine.errors import BadInput
from engine.events import EditUndone, Event, Note
from sessions.rows import Node

from .opening import ledger_at
from .timeline import Turn, around, mark, turns_at
from .views import EditView, Moved, TurnView, UndoPlan, UndoView

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.ledger import Ledger

    from .conversation import Conversation


class Past:
    """What a conversation can do with what it has done."""

    def __init__(self, conversation: Conversation) -> None:
        self._of = conversation

    def undo(self, count: int = 1) -> Generator[Event, None, UndoView]:
        """Take the last `count` edits off. Raises BadInput, and does nothing, for too many."""
        _, ledger = self._of.ready()
        _enough("undo", count, len(ledger.edits))
        return (yield from self._move("undo", [lambda ledger: ledger.undo()] * count))

    def redo(self, count: int = 1) -> Generator[Event, None, UndoView]:
        """Put the last `count` undone edits back. Raises BadInput, like `undo`."""
        _, ledger = self._of.ready()
        _enough("redo", count, len(ledger.undone))
        return (yield from self._move("redo", [lambda ledger: ledger.redo()] * count))

    def drop(self, edit_id: str) -> Generator[Event, None, UndoView]:
        return (yield from self._move("drop", [lambda ledger: ledger.drop(edit_id)]))

    def _move(
        self, action: str, changes: Sequence[Callable[[Ledger], Edit]]
    ) -> Generator[Event, None, UndoView]:
        """All changes in the ledger and the record, or none in either; go back to the answer that
        they belong to."""
        of = self._of
        _, ledger = of.ready()
        store, session = of.recorder.required()
        before, turns = [e.id for e in ledger.acting], of.turns
        trial = type(ledger)(ledger.edits, ledger.undone)
        events: list[EditUndone] = []
        with store.atomic():
            for change in changes:
                edit, fingerprint = change(trial), trial.fingerprint()
                turns = mark(store, session, action, edit.id, fingerprint, turns)
                active = len(trial.acting)
                events.append(
                    EditUndone(edit=edit.id, action=action, active=active, ledger=fingerprint)
                )
        moved, ledger = turns != of.turns, trial
        of.ledger, of.turns = ledger, turns
        yield from events
        after, done = [e.id for e in ledger.acting], [event.edit for event in events]
        # What was put back may be superseded; what was taken off is known to be gone.
        gone = [*before, *done] if action == "redo" else [id for id in before if id not in done]
        views = {view.id: view for view in of.edits()}
        return UndoView(
            action=action,
            edit=views[done[-1]],
            edits=tuple(views[id] for id in done),
            answer_now=of.turns[-1].answer if moved and of.turns else "",
            active=tuple(views[id] for id in after),
            back=tuple(views[id] for id in after if id not in (*before, *done)),
            out=tuple(views[id] for id in gone if id not in after),
        )

    # -- messages ----------------------------------------------------------------------------

    def forget(self, number: int | None) -> Generator[Event, None, TurnView]:
        """Leave question and answer `number` out of the conversation; the last by default.

        Nothing is removed from the record, and edits stay. Raises BadInput, SessionError.
        """
        of = self._of
        of.ready()
        answered = [i for i, turn in enumerate(of.turns) if turn.answer]
        if not of.turns:
            raise BadInput("nothing was asked yet.")
        if number is not None and not 1 <= number <= len(answered):
            raise BadInput(f"there is no answer {number}: they count from 1 to {len(answered)}.")
        place = len(of.turns) - 1 if number is None else answered[number - 1]
        turn, view = of.turns[place], of.turn_view(place)
        if turn.user:
            store, session = of.recorder.required()
            store.forget(session, turn.user)
        del of.turns[place]
        yield Note(text=f"forgotten: {turn.question!r}")
        return view

    def remember(self) -> Generator[Event, None, TurnView]:
        """Take what was forgotten last on this branch back into the conversation.

        Raises BadInput, SessionError.
        """
        of = self._of
        of.ready()
        store, session = of.recorder.required()
        here = {node.id for node in store.path(session)}
        node = next((id for id in reversed(store.forgotten(session)) if id in here), None)
        if node is None:
            raise BadInput("nothing was forgotten.")
        store.remember(session, node)
        of.turns = turns_at(store, session)
        place = next(i for i, turn in enumerate(of.turns) if node in (turn.user, turn.node))
        yield Note(text=f"remembered: {of.turns[place].question!r}")
        return of.turn_view(place)

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
        of.keep_method()
        session = store.session(ref)
        name = session.title or session.short
        if session.id == of.recorder.session_id and not store.moved(session.id):
            raise BadInput(f"session {name} is open already.")
        if session.model.fingerprint != lm.fingerprint:
            raise BadInput(
                f"session {name} was made with another model ({session.model.name}).",
                f"llm-edit chat --session {session.short} opens it.",
            )
        at = ledger_at(store, session, session.tip, (*ledger.edits, *ledger.undone))
        turns = turns_at(store, session.id, session.tip)
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


def _enough(action: str, count: int, there: int) -> None:
    """Raises BadInput: all of them are moved or none."""
    if not there:
        raise BadInput(f"there is no edit to {action}.")
    if count > there:
        raise BadInput(f"there {'is' if there == 1 else 'are'} only {there} to {action}.")


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
