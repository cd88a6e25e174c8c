"""From turns to what the model is asked, and from a correction to a request."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import BadRequest, SubjectAmbiguous
from engine.events import Event, Note
from engine.requests import Request

from .subjects import ordered
from .timeline import Turn
from .views import Correction

if TYPE_CHECKING:
    from engine.ledger import Ledger
    from engine.lm import LM
    from engine.tokens import Rendered

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fitting:
    """A prompt, how many of the oldest turns it leaves out, and the room for its answer."""

    prompt: Rendered
    left_out: int
    room: int  # tokens


def fitting(lm: LM, turn: Turn, before: Pairs, wanted: int) -> Fitting:
    """The prompt of a turn behind as many of the turns `before` as leave room for the answer.

    wanted  tokens of the answer. Raises BadRequest when the question alone is too long.
    """
    limit = getattr(lm.model.config, "max_position_embeddings", None) or sys.maxsize
    for left_out in range(len(before) + 1):
        prompt = lm.prompt(turn.question, chat=not turn.statement, history=before[left_out:])
        room = limit - len(prompt.ids)
        if room >= wanted:
            return Fitting(prompt, left_out, wanted)
    if room > 0:  # a shorter answer is better than none
        return Fitting(prompt, len(before), room)
    raise BadRequest(
        f"the question has {len(prompt.ids)} tokens; {lm.name} reads at most {limit}.",
        "Shorten it.",
    )


def request_of(asked: Correction, turn: Turn | None, context: Pairs) -> Request:
    """What a correction asks of a method. Raises BadRequest and its kin."""
    question = turn.question if turn is not None else asked.question or ""
    statement = turn.statement if turn is not None else asked.statement
    return Request(
        prompt=question,
        subject=asked.subject,
        target_new=asked.target,
        target_old=asked.old,
        rephrases=asked.rephrases,
        neighbours=asked.neighbours,
        chat=not statement,
        history=() if statement else context,
    ).check()


def subject_of(
    lm: LM, ledger: Ledger, request: Request, answer: str
) -> Generator[Event, None, str]:
    """The most likely subject of a question, if it is clearly ahead.

    answer  what the model said; "" where it was not asked. Raises SubjectAmbiguous.
    """
    from engine.subject import find_subject

    yield Note(text=f"looking for the subject of {request.prompt!r}")
    with lm.active(ledger.patches()):
        ranked, clear = ordered(find_subject(lm, request.prompt, answer, chat=request.chat))
    names = ", ".join(repr(span.text) for span in ranked)
    if not clear:
        raise SubjectAmbiguous(
            f"it is not clear what {request.prompt!r} is about"
            + (f": it could be {names}." if names else "."),
            "Name the subject: /fix SUBJECT => ANSWER, or --subject SUBJECT.",
        )
    yield Note(text=f"subject: {ranked[0].text!r} of {names}")
    return ranked[0].text
