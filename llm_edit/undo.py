"""`llm-edit undo` and `redo`: on the record of a session; no model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .common import options, print_json, stored

if TYPE_CHECKING:
    from sessions.rows import EditRow, Session
    from sessions.store import Store

COUNT = click.argument("n", type=click.IntRange(min=1), default=1)


@click.command()
@COUNT
@click.option("--edit", "edit", help="This edit, wherever it stands: number, id, or part of it.")
@options("name", "session")
@click.pass_context
def undo(
    context: click.Context,
    n: int,
    edit: str | None,
    session: str | None,
    model: str | None,
    as_json: bool,
) -> int:
    """Take the last N edits of a session off, all or none: by default of the session that was
    edited last."""
    if edit and context.get_parameter_source("n") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("N and --edit exclude each other.")
    return _move("undo", n, edit, session, model, as_json)


@click.command()
@COUNT
@options("name", "session")
def redo(n: int, session: str | None, model: str | None, as_json: bool) -> int:
    """Put the last N undone edits of a session back, all or none."""
    return _move("redo", n, None, session, model, as_json)


def _move(
    action: str, n: int, edit: str | None, ref: str | None, model: str | None, as_json: bool
) -> int:
    from tui.timeline import edit_views
    from tui.wording import DONE, named

    with stored() as store:
        with store.atomic():
            session = _session(store, ref, model)
            moved = _marked(store, session, action, n, edit)
        standing, replaced = store.active_edits(session.id), store.superseded(session.id)
        active = [row for row in standing if row.id not in replaced]
        views = {v.id: v for v in edit_views(store.edits(session.id), [r.id for r in standing])}
    if as_json:
        print_json(
            {
                "session": session.id,
                "action": "drop" if edit else action,
                "edits": [row.id for row in moved],
                "active": [row.id for row in active],
                "superseded": replaced,
            }
        )
        return 0
    for row in moved:
        click.echo(f"{DONE[action]}: {views[row.id].fact} (edit {row.id})")
    for old, new in replaced.items():
        click.echo(f"{named(views[old])} is superseded by #{views[new].number}")
    name = session.title or session.short
    click.echo(f"{len(active)} active in session {name} ({session.model.name})")
    return 0


def _session(store: Store, ref: str | None, model: str | None) -> Session:
    """The one that is named, or in which an edit was last made, taken off or put back."""
    from engine.errors import BadInput
    from tui.opening import model_name

    if ref is not None:
        return store.session(ref)
    found = store.latest_session(model_name(model) if model else None, edited=True)
    if found is None:
        raise BadInput("nothing was edited yet.", "llm-edit edit and llm-edit chat do that.")
    return found


def _marked(store: Store, session: Session, action: str, n: int, edit: str | None) -> list[EditRow]:
    """Move N edits, all or none: what is not there is said before anything is written."""
    from engine.errors import BadInput
    from engine.ledger import Ledger
    from tui.timeline import mark, turns_at

    # The ledger only looks at ids, which rows of the store have too.
    edits: Any = store.active_edits(session.id)
    undone: Any = store.undone_edits(session.id)
    there = len(undone) if action == "redo" else len(edits)
    if edit is None and not there:
        raise BadInput(f"there is no edit to {action} in this session.")
    if edit is None and n > there:
        raise BadInput(f"there {'is' if there == 1 else 'are'} only {there} to {action}, not {n}.")
    ledger: Any = Ledger(edits, undone)
    turns = turns_at(store, session.id)
    moved = []
    for _ in range(1 if edit else n):
        if edit is not None:
            row, kind = ledger.drop(_standing(store, session, edit)), "drop"
        else:
            row, kind = (ledger.redo() if action == "redo" else ledger.undo()), action
        turns = mark(store, session.id, kind, row.id, ledger.fingerprint(), turns)
        moved.append(row)
    return moved


def _standing(store: Store, session: Session, edit: str) -> str:
    """The id of an edit that can be taken off. Raises BadInput, UnknownEdit."""
    from engine.errors import BadInput
    from tui.commands_edits import state_words
    from tui.timeline import edit_views

    id, standing = _named(store, session, edit), [e.id for e in store.active_edits(session.id)]
    if id in standing:
        return id
    views = edit_views(store.edits(session.id), standing)
    there = ", ".join(f"#{view.number}" for view in views if view.id in standing)
    found = next((view for view in views if view.id == id), None)
    which = f"#{found.number} is {state_words(found)}" if found else f"{id} is another session's"
    raise BadInput(f"edit {which}: it cannot be taken off.", f"In force: {there or 'none'}.")


def _named(store: Store, session: Session, edit: str) -> str:
    """The id of an edit by its number in the session, or by (part of) its id."""
    number, rows = edit.removeprefix("#"), store.edits(session.id)
    if number.isdigit() and 1 <= int(number) <= len(rows):
        return rows[int(number) - 1].id
    return store.edit(edit).id
