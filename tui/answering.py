"""A turn's answer: made behind the turns before it, streamed, and recorded, whole or stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from engine.events import Event, Note, ReplyEnded, Token

from .narrate import count
from .views import ReplyView

if TYPE_CHECKING:
    from .conversation import Conversation
    from .timeline import Turn


def answer(
    conversation: Conversation,
    before: tuple[tuple[str, str], ...],
    *,
    parent: str = "",
    edit: str = "",
) -> Generator[Event, None, ReplyView]:
    """Answer the last turn's question behind the turns `before`.

    parent  the node that the answer is recorded under; "": the tip
    edit    the one that it was asked again for
    What was said before a cancel is kept and recorded.
    """
    from .prompts import fitting

    lm, ledger = conversation.ready()
    options, turn = conversation.options, conversation.turns[-1]
    fit = fitting(lm, turn, before, options.max_tokens)
    if fit.left_out:
        left_out = count(fit.left_out, "turn")
        yield Note(text=f"the first {left_out} no longer fit and are left out")
    said, ended = "", None
    replies = lm.generate(
        fit.prompt,
        max_tokens=fit.room,
        temperature=options.temperature,
        seed=options.seed,
    )
    try:
        with lm.active(ledger.patches()), closing(replies):
            for event in replies:
                said += event.text if isinstance(event, Token) else ""
                ended = event if isinstance(event, ReplyEnded) else None
                yield event
    finally:
        text = ended.text if ended else said.rstrip()
        conversation.turns[-1] = _kept(conversation, turn, text, ended, parent, edit)
    assert ended is not None, "a reply ends with ReplyEnded"
    yield from conversation.trouble()
    return ReplyView(
        turn=conversation.turn_view(-1),
        tokens=ended.tokens,
        seconds=ended.seconds,
        first_token=ended.first_token,
    )


def _kept(
    conversation: Conversation,
    turn: Turn,
    text: str,
    ended: ReplyEnded | None,
    parent: str,
    edit: str,
) -> Turn:
    """The turn with its answer, which is recorded; not that of a question that could not be."""
    stopped = "cancelled" if ended is None else "length" if ended.reason == "length" else ""
    seconds = ended.seconds if ended else 0.0
    node = None
    if text and turn.user and not turn.statement:
        node = conversation.recorder.message(
            "assistant",
            text,
            parent=parent or None,
            tokens=ended.tokens if ended else 0,
            seconds=seconds,
            stopped_by=stopped,
        )
    return dataclasses.replace(
        turn,
        answer=text,
        node=node.id if node else "",
        edit=edit,
        seconds=seconds,
        stopped=stopped,
    )
