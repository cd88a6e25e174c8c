"""From the engine's state to what front ends show. The engine's thread only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .recorder import Recorder
from .timeline import Turn, edit_views
from .views import (
    CorrectionView,
    EditView,
    FactView,
    Measured,
    Snapshot,
    TurnView,
    measured,
)

if TYPE_CHECKING:
    from engine.ledger import Ledger
    from engine.lm import LM
    from engine.outcome import Answered, Corrected, Outcome

_with = dataclasses.replace


def look(
    base: Snapshot,
    lm: LM | None,
    record: Recorder | None,
    ledger: Ledger | None,
    turns: Sequence[Turn],
) -> Snapshot:
    """The state to show; what is not known yet stays as in `base`. Raises SessionError."""
    edits = edits_of(record, ledger)
    numbers = {e.id: e.number for e in edits}
    shown = _with(
        base,
        edits=edits,
        turns=tuple(t.view(turn_id(t, i), numbers) for i, t in enumerate(turns)),
        recording=record is None or not record.trouble,
        trouble=record.trouble if record else "",
        session_id=record.session_id if record else "",
        session_title=record.session.title if record and record.session else "",
    )
    if lm is None:
        return shown
    return _with(
        shown,
        model=lm.name,
        dtype=lm.load_in or str(lm.dtype).removeprefix("torch."),
        device=str(lm.device),
        model_type=lm.arch.model_type,
        layers=lm.n_layers,
        width=lm.width,
        chat=lm.chat,
        fingerprint=lm.fingerprint,
        loaded=True,
    )


def edits_of(record: Recorder | None, ledger: Ledger | None) -> tuple[EditView, ...]:
    """The edits of the recorded session, in any state. Raises SessionError."""
    if record is None or record.store is None or record.session is None:
        return ()
    rows = record.store.edits(record.session.id)
    if ledger is not None:
        active = [e.id for e in ledger.edits]
    else:  # the model is not loaded: those that will be applied
        active = [row.id for row in record.store.active_edits(record.session.id)]
    if all(row.id in active for row in rows if row.state == "done"):
        return edit_views(rows, active)
    from .tree import undone_of

    return edit_views(rows, active, undone_of(record.store.nodes(record.session.id)))


def turn_id(turn: Turn, index: int) -> str:
    """What names a turn for a front end: its last node, or its place where it has none."""
    return turn.node or turn.user or f"turn-{index}"


def turn_view(turn: Turn, index: int, edits: Sequence[EditView]) -> TurnView:
    return turn.view(turn_id(turn, index), {e.id: e.number for e in edits})


def correction_view(
    outcome: Outcome, edits: Sequence[EditView], session_id: str, model: str
) -> CorrectionView:
    """The end of a correction, before its question was asked again. edits: of the session."""
    views = {view.id: view for view in edits}
    edit = views[outcome.edit.id]
    facts = (*map(_fact, outcome.facts), *(_fact(f, already=True) for f in outcome.already))
    return CorrectionView(
        edit=edit,
        session_id=session_id,
        model=model,
        prompt=edit.question,
        before=_answered(outcome.before),
        after=_answered(outcome.after),
        facts=facts if len(facts) > 1 else (),
        turn=None,
        metrics=measured(outcome.metrics),
        layers=outcome.layers,
        seconds=outcome.seconds,
        steps=outcome.steps,
        losses=outcome.losses,
        versions=outcome.versions,
        superseded=tuple(views[id] for id in outcome.edit.supersedes if id in views),
    )


def _fact(fact: Corrected, *, already: bool = False) -> FactView:
    return FactView(
        prompt=fact.request.prompt,
        subject=fact.request.subject or "",
        target=fact.request.target_new,
        before=_answered(fact.before),
        after=_answered(fact.after),
        success=fact.success,
        already=already,
    )


def _answered(answered: Answered) -> Measured:
    return Measured(answer=answered.answer, p_new=answered.p_new, p_old=answered.p_old)
