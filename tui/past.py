"""Going back in a conversation: edits that are taken off and put back. The engine's thread only.

Nothing is lost by it: the record only grows, and what is active is what its path says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from engine.events import EditUndone, Event

from .timeline import mark
from .views import UndoView

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
        change(ledger)
        moved = turns != of.turns
        of.turns = turns
        yield EditUndone(edit=edit.id, action=action, active=len(ledger.edits), ledger=fingerprint)
        views = {view.id: view for view in of.edits()}
        return UndoView(
            action=action,
            edit=views[edit.id],
            answer_now=turns[-1].answer if moved and turns else "",
            active=tuple(views[e.id] for e in ledger.edits),
        )
