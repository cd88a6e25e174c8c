"""`llm-edit ask`: one answer."""

from __future__ import annotations

import sys
from typing import Any

import click

from tui.console import printable

from .checking import check
from .common import (
    assistant_options,
    finished,
    narrator,
    opened,
    options,
    print_event,
    print_json,
)


@click.command()
@click.argument("prompt")
@options("running", "session")
@click.option("--statement", is_flag=True, help="Continue the text instead of answering it.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of the answer.")
@click.option("--events", is_flag=True, help="Every event as JSON Lines on stdout.")
@click.option("--verbose", is_flag=True, help="Say on stderr what happens.")
def ask(
    prompt: str,
    statement: bool,
    max_tokens: int | None,
    events: bool,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """One answer to PROMPT ("-" reads it from stdin), with the session's edits active."""
    if events and as_json:
        raise click.UsageError("--events and --json exclude each other.")
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("the prompt is empty.")
    more = {"max_tokens": max_tokens} if max_tokens is not None else {}
    wanted = assistant_options(given, reuse=True, prepare=False, **more)
    check(wanted)
    say = narrator(verbose=verbose)
    with opened(wanted, say) as assistant:
        job = assistant.ask(text, fresh=True, statement=statement)
        reply = finished(job, say, print_event if events else None)
        state = assistant.snapshot()
    if as_json:
        print_json(
            {
                "session": state.session_id,
                "model": state.model,
                "question": reply.turn.question,
                "answer": reply.turn.answer,
                "edits": [edit.id for edit in state.active],
                "tokens": reply.tokens,
                "stopped": reply.turn.stopped,
                "seconds": {"total": reply.seconds, "first_token": reply.first_token},
            }
        )
    elif not events:
        click.echo(printable(reply.turn.answer))
    if reply.turn.stopped == "length":
        click.echo("cut off at the token limit; --max-tokens sets it.", err=True)
    return 0
