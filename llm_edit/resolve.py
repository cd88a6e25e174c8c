"""`llm-edit resolve`: the closed-form edits of a session, solved again together."""

from __future__ import annotations

from typing import Any

import click

from tui.console import printable

from .checking import check_resolve
from .common import assistant_options, finished, narrator, opened, options, print_json
from .edit import as_row, told


@click.command()
@options("tuning", "session")
@click.option("--again", type=click.IntRange(min=0), default=0, metavar="ROUNDS",
              help="Insert facts anew that are not said then, so often at most.")  # fmt: skip
@click.option("--fit", type=click.IntRange(min=0), default=0, metavar="STEPS",
              help="Then fit all facts together, so long, and hold running text.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="The whole log, on stderr.")
def resolve(again: int, fit: int, verbose: bool, as_json: bool, **given: Any) -> int:
    """Solve the edits of a session again, all together.

    Edits made one after the other disturb each other a little, and what was made on top of an edit
    that was taken off since misses it. This makes one edit of all that a method with a closed form
    made (ROME and its kin: docs/closed-form.md); `llm-edit undo` brings them back as they
    were. Facts that are not said even then can be inserted anew beside the others (--again), with
    MEMIT unless --hp method= names another. Where facts are many, --fit says nearly all of them:
    some hundred steps of gradient descent on all at once, and on running text, which is to stay as
    the unedited model has it. Exit code 1: a fact did not take.
    """
    wanted = assistant_options(given, reuse=True, prepare=False)
    overrides = wanted.hp | {name: str(n) for name, n in (("again", again), ("fit", fit)) if n}
    check_resolve(wanted, overrides)
    with opened(wanted, narrator(verbose=verbose)) as assistant:
        view = finished(assistant.resolve(overrides), narrator(verbose=verbose))
    if as_json:
        print_json(as_row(view))
    else:
        for line in told(view):
            click.echo(printable(line))
    return 0 if view.edit.success else 1
