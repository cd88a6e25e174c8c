"""The ordered edits of a live model.

The base weights never change, so the state of a model *is* this list: undo takes an edit off,
and the logits are bit for bit those of a model that never had it.

Two edits of one question would add up to an answer that nobody asked for. So the later one
names the earlier ones it `supersedes`: they keep their place in the list, but their patches do
not act while the later one stands. Which edits act follows from the list alone, and undo, redo
and drop need not know of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import BadInput, UnknownName

if TYPE_CHECKING:  # a ledger can be kept without torch
    from .edit import Edit
    from .patches import Patch
    from .requests import Request

RESOLVED = "resolve"  # the method of an edit that stands for those it supersedes: engine/resolve.py


class Ledger:
    """Active edits in order, and the undone ones that `redo` can put back.

    Of the active edits those act that no other active one supersedes.
    """

    def __init__(self, edits: Iterable[Edit] = (), undone: Iterable[Edit] = ()) -> None:
        self._active: list[Edit] = list(edits)
        self._undone: list[Edit] = list(undone)  # the next one to redo is last

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Active edits, superseded ones among them."""
        return tuple(self._active)

    @property
    def acting(self) -> tuple[Edit, ...]:
        """The active edits whose patches act on the model."""
        superseded = self.superseded()
        return tuple(edit for edit in self._active if edit.id not in superseded)

    @property
    def undone(self) -> tuple[Edit, ...]:
        return tuple(self._undone)

    def superseded(self) -> dict[str, str]:
        """Per superseded edit the last active one that names it, by id."""
        active = {edit.id for edit in self._active}
        return {old: edit.id for edit in self._active for old in edit.supersedes if old in active}

    def rivals(self, request: Request) -> tuple[Edit, ...]:
        """The active edits of the same question and of nothing else: a new one supersedes them."""
        key = request.key()
        return tuple(e for e in self._active if all(r.key() == key for r in e.requests))

    def patches(self) -> tuple[Patch, ...]:
        """What acts on the model."""
        return tuple(patch for edit in self.acting for patch in edit.patches)

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
        """`fingerprint_of` the active edits."""
        return fingerprint_of(edit.id for edit in self._active)


def fingerprint_of(ids: Iterable[str]) -> str:
    """sha256 over the ids of active edits, in order; "" when there are none."""
    named = "\n".join(ids)
    return hashlib.sha256(named.encode()).hexdigest() if named else ""
