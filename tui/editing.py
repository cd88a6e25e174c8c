"""One edit from its intent to its record. The engine's thread only."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from engine import batch, correct
from engine.events import EditPlanned, Event
from engine.ledger import Ledger
from engine.memory import MemoryMeter
from engine.outcome import Outcome
from engine.requests import Request
from sessions.errors import SessionError
from sessions.rows import Node, PatchRecord

from .recorder import Recorder
from .texts import clip
from .views import Correction, measured

if TYPE_CHECKING:
    from engine.lm import LM
    from sessions.store import Store

log = logging.getLogger(__name__)


def correction(
    lm: LM, requests: Sequence[Request], asked: Correction, seed: int
) -> Callable[[Ledger], Generator[Event, None, Outcome]]:
    """The engine's work for one request, or for several that become one edit."""
    how: dict[str, Any] = {
        "method": asked.method, "overrides": asked.hp, "probes": asked.probes, "seed": seed
    }  # fmt: skip
    if len(requests) == 1:
        return lambda ledger: correct.correct(lm, ledger, requests[0], **how)
    return lambda ledger: batch.correct_batch(lm, ledger, requests, **how)


def edited(
    record: Recorder,
    lm: LM,
    ledger: Ledger,
    requests: Sequence[Request],
    make: Callable[[Ledger], Generator[Event, None, Outcome]],
    *,
    parent: str | None,
    seed: int,
    memory: MemoryMeter | None,
) -> Generator[Event, None, Outcome]:
    """Edit, measured and recorded: in model, ledger and store, or in none of them.

    requests  the facts, as they are recorded
    make      the work: it edits the ledger that it is given
    The intent is committed before the first step, so that a killed process can be told of.
    Raises what the work and the store raise.
    """
    trial = Ledger(ledger.edits, ledger.undone)
    node: Node | None = None
    work = make(trial)
    try:
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                break
            if isinstance(event, EditPlanned) and node is None:
                store, session = record.required()
                node = store.begin_edit(
                    session,
                    edit_id=event.edit,
                    method=event.method,
                    hparams=event.hparams,
                    request=as_recorded(requests),
                    parent=parent,
                    seed=seed,
                    device=str(lm.device),
                )
                record.node = node.id
            yield event
        assert node is not None, "a method says what it plans before it computes"
        _finish(record.check(), node, outcome, trial.fingerprint(), memory.peak() if memory else 0)
    except BaseException as error:
        work.close()
        if node is not None:
            _give_up(record.check(), node, error)
        raise
    ledger.apply(outcome.edit)
    return outcome


def as_recorded(requests: Sequence[Request]) -> dict[str, Any]:
    """A request as the store keeps it; of several the words that name them, and all of them."""
    if len(requests) == 1:
        return requests[0].to_json()
    subjects = [request.subject or request.prompt for request in requests]
    targets = [request.target_new for request in requests]
    return {
        "prompt": f"{len(requests)} facts: {clip(', '.join(subjects), 120)}",
        "target_new": clip(", ".join(targets), 120),
        "requests": [request.to_json() for request in requests],
    }


def _finish(store: Store, node: Node, outcome: Outcome, ledger_hash: str, peak_memory: int) -> None:
    body, tensors = outcome.edit.save()
    store.finish_edit(
        node.id,
        patches=[
            PatchRecord(
                kind=patch["kind"],
                site=layer["site"],
                rank=layer.get("rank", 0),
                norm_ratio=layer.get("norm_ratio", math.nan),
            )
            for patch, layer in zip(body["patches"], outcome.layers, strict=True)
        ],
        tensors=tensors,
        edit=body,
        before=dataclasses.asdict(outcome.before),
        after=dataclasses.asdict(outcome.after),
        success=outcome.success,
        verdict=outcome.verdict,
        metrics=measured(outcome.metrics),
        seconds=outcome.seconds,
        peak_memory=peak_memory,
        versions=outcome.versions,
        ledger_hash=ledger_hash,
    )


def _give_up(store: Store, node: Node, error: BaseException) -> None:
    """Record that the edit came to nothing; a store that fails here has its reason told above."""
    cancelled = isinstance(error, GeneratorExit)
    try:
        store.fail_edit(node.id, "cancelled" if cancelled else "failed", str(error))
    except SessionError as failed:
        log.warning("edit %s cannot be marked: %s", node.target, failed)
