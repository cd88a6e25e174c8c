"""The ordered edits of a live model.

The base weights never change, so the state of a model *is* this list: undo takes an edit off,
and the logits are bit for bit those of a model that never had it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import BadInput, UnknownName

if TYPE_CHECKING:  # a ledger can be kept without torch
    from .edit import Edit
    from .patches import Patch


class Ledger:
    """Active edits in order, and the undone ones that `redo` can put back."""

    def __init__(self, edits: Iterable[Edit] = (), undone: Iterable[Edit] = ()) -> None:
        self._active: list[Edit] = list(edits)
        self._undone: list[Edit] = list(undone)  # the next one to redo is last

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(self._active)

    @property
    def undone(self) -> tuple[Edit, ...]:
        return tuple(self._undone)

    def patches(self) -> tuple[Patch, ...]:
        return tuple(patch for edit in self._active for patch in edit.patches)

    def apply(self, edit: Edit) -> None:
        """Add an edit. What was undone before can no longer be redone."""
        self._active.append(edit)
        self._undone.clear()

    def undo(self) -> Edit:
        """Take the last edit off. Raises BadInput when there is none."""
        if not self._active:
            raise BadInput("there is no edit to undo.")
        edit = self._active.pop()
        self._undone.append(edit)
        return edit

    def redo(self) -> Edit:
        """Put the last undone edit back. Raises BadInput when there is none."""
        if not self._undone:
            raise BadInput("there is no edit to redo.")
        edit = self._undone.pop()
        self._active.append(edit)
        return edit

    def drop(self, edit_id: str) -> Edit:
        """Take one edit off, wherever it stands; the others stay as they were computed.

        Raises UnknownName.
        """
        for edit in self._active:
            if edit.id == edit_id:
                self._active.remove(edit)
                self._undone.append(edit)
                return edit
        raise UnknownName("active edit", edit_id, (e.id for e in self._active))

    def fingerprint(self) -> str:
        """sha256 over the ids of the active edits, in order; "" when there are none."""
        if not self._active:
            return ""
        return hashlib.sha256("\n".join(e.id for e in self._active).encode()).hexdigest()
