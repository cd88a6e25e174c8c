"""What can be known of a correction before it is made. The work runs on the engine's thread."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.events import Event
from engine.requests import Request
from sessions.errors import SessionError

if TYPE_CHECKING:
    from engine.lm import LM

    from .conversation import Conversation

log = logging.getLogger(__name__)

RECENT = 20  # edits whose costs are looked at


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A target as the model will see it, and what such edits have cost.

    pieces    the target's tokens as text, without the ending
    shares    the old answer begins with the same token, so that P(old) will not fall
    inner     the first token inside a sentence, where it is another than at the beginning; else ""
    seconds   median of the measured edits on this model, device and method; NaN without any
    memory    bytes, the highest peak of them; 0 where it was not measured
    measured  how many edits
    free      bytes that can be allocated now
    """

    target: str
    method: str
    pieces: tuple[str, ...]
    shares: bool
    inner: str
    seconds: float
    memory: int
    measured: int
    free: int

    @property
    def fits(self) -> bool:
        """False only where it is known not to."""
        return self.memory <= self.free


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the checks answer before the edit: (kind, question, answer), and the perplexity."""

    rows: tuple[tuple[str, str, str], ...]
    perplexity: float


class Weighing:
    """Part of a conversation: looks, and changes nothing."""

    def __init__(self, conversation: Conversation) -> None:
        self._of = conversation

    def weigh(self, turn: str | None, target: str, method: str) -> Generator[Event, None, Weighed]:
        """Raises BadInput (no such turn), ModelUnavailable."""
        from engine.hardware import free_memory
        from engine.tokens import target_ids

        yield from ()
        lm, _ = self._of.ready()
        asked = self._of.turn(turn)
        prompt = lm.prompt(asked.question, chat=not asked.statement)
        ids = target_ids(lm.tokenizer, prompt, target)
        old = target_ids(lm.tokenizer, prompt, asked.answer) if asked.answer else ()
        ids = ids[: len(ids) - len(prompt.ending)]
        costs = self._costs(lm, method)
        return Weighed(
            target=target,
            method=method,
            pieces=tuple(lm.tokenizer.decode([i]) for i in ids),
            shares=bool(old) and ids[:1] == old[:1],
            inner=_inner(lm, target, ids) if prompt.glue == "" else "",
            seconds=statistics.median([s for s, _ in costs]) if costs else math.nan,
            memory=max((peak for _, peak in costs), default=0),
            measured=len(costs),
            free=free_memory(lm.device),
        )

    def _costs(self, lm: LM, method: str) -> list[tuple[float, int]]:
        """(seconds, bytes) of recent edits on this model; none where they cannot be read."""
        store = self._of.recorder.store
        if store is None:
            return []
        try:
            return store.costs(lm.fingerprint, str(lm.device), method, RECENT)
        except SessionError as error:
            log.warning("the costs of edits cannot be read: %s", error)
            return []

    def preview(
        self, turn: str | None, target: str, subject: str | None
    ) -> Generator[Event, None, Preview]:
        """Ask the checks' questions of the model as it is now. Raises BadRequest and its kin."""
        from engine.evaluate.probes import Probes

        lm, ledger = self._of.ready()
        asked = self._of.turn(turn)
        request = Request(
            prompt=asked.question, target_new=target, subject=subject, chat=not asked.statement
        ).check()
        probes = Probes.build(lm, request)
        with lm.active(ledger.patches()):
            answers = yield from probes.ask(lm)
        rephrased = zip(probes.rephrases, answers.rephrased, strict=True)
        neighbours = zip(probes.neighbours, answers.neighbours, strict=True)
        rows = [("rephrased", *pair) for pair in rephrased]
        rows += [("neighbour", *pair) for pair in neighbours]
        return Preview(rows=tuple(rows), perplexity=answers.perplexity)


def _inner(lm: LM, target: str, ids: tuple[int, ...]) -> str:
    """The target's first token inside a sentence, where it is not that of the beginning."""
    from engine.tokens import continuation

    inside = continuation(lm.tokenizer, f" {target}")
    return lm.tokenizer.decode([inside[0]]) if inside[:1] != ids[:1] else ""
