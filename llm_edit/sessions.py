"""`llm-edit sessions`: what was said and edited before. For carrying it, see carry.py."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from tui.console import printable, table

from . import carry, completing
from .common import options, print_json, stored

if TYPE_CHECKING:
    from sessions.rows import SessionRow


@click.group()
def sessions() -> None:
    """List, show, find, name, remove, export and import sessions."""


@sessions.command("list")
@options()
def list_(as_json: bool) -> None:
    """All sessions, last used first."""
    with stored() as store:
        rows = store.sessions()
    if as_json:
        print_json({"sessions": [_summary(row) for row in rows]})
        return
    head = ("session", "title", "model", "messages", "edits", "last used")
    lines = [
        (r.short, r.title, r.model.name, str(r.messages), str(r.edits), r.updated[:16])
        for r in rows
    ]
    for line in table(head, lines) if rows else ["There are no sessions yet."]:
        click.echo(line)


def _summary(row: SessionRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "title": row.title,
        "model": row.model.name,
        "method": row.method,
        "messages": row.messages,
        "edits": row.edits,
        "created": row.created,
        "updated": row.updated,
        "state": row.state,
    }


@sessions.command()
@click.argument("session", shell_complete=completing.sessions)
@options()
def show(session: str, as_json: bool) -> None:
    """The turns and the edits of SESSION (title, id, or part of an id)."""
    from tui.timeline import edit_views, turns_at

    with stored() as store:
        found = store.session(session)
        turns = turns_at(store, found.id)
        rows = store.edits(found.id)
        active = [row.id for row in store.active_edits(found.id)]
    edits = edit_views(rows, active)
    numbers = {edit.id: edit.number for edit in edits}
    views = [t.view(t.node or t.user, numbers) for t in turns]
    if as_json:
        print_json(
            {
                "id": found.id,
                "title": found.title,
                "model": dataclasses.asdict(found.model),
                "method": found.method,
                "turns": views,
                "edits": edits,
                "active": active,
            }
        )
        return
    click.echo(f"{found.title or found.id} · {found.model.name} · {found.created[:16]}")
    for view in views:
        click.echo(printable(f"\n> {view.question}"))
        edited = f"  [after edit #{view.edited_by}]" if view.edited_by else ""
        click.echo(printable(f"{view.answer}{edited}"))
    if edits:
        from tui.commands_edits import EDIT_HEAD, edit_row

        click.echo()
        for line in table(EDIT_HEAD, [edit_row(edit) for edit in edits]):
            click.echo(line)


@sessions.command()
@click.argument("text")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@options()
def search(text: str, limit: int, as_json: bool) -> None:
    """Find questions, answers and facts with every word of TEXT."""
    from sessions.ids import short

    with stored() as store:
        hits = store.search(text, limit)
    if as_json:
        print_json({"hits": hits})
        return
    rows = [(short(h.session), h.title, h.kind, " ".join(h.snippet.split())) for h in hits]
    for line in table(("session", "title", "kind", "text"), rows) if rows else ["Nothing found."]:
        click.echo(line)


@sessions.command()
@click.argument("session", shell_complete=completing.sessions)
@click.argument("title")
@options()
def rename(session: str, title: str, as_json: bool) -> None:
    """Give SESSION the name TITLE."""
    with stored() as store:
        found = store.rename_session(session, title)
    if as_json:
        print_json({"id": found.id, "title": found.title})
    else:
        click.echo(f"{found.short} is now called {found.title!r}")


@sessions.command()
@click.argument("session", nargs=-1, required=True, shell_complete=completing.sessions)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options()
def rm(session: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove every SESSION named, for good, with its edits and their files; all or none."""
    with stored() as store:
        found = {each.id: each for each in map(store.session, session)}
        names = ", ".join(each.title or each.id for each in found.values())
        if not yes:
            click.confirm(f"Remove {printable(names)} for good?", abort=True, err=True)
        removed = store.remove_sessions(list(found))
    if as_json:
        ids = [each.id for each in removed.sessions]
        print_json({"removed": ids, "files": removed.files, "vacuumed": removed.vacuumed})
        return
    click.echo(f"removed {printable(names)}")
    if not removed.vacuumed:
        click.echo("Another program reads the database: its file shrinks at the next removal.",
                   err=True)  # fmt: skip


sessions.add_command(carry.export)
sessions.add_command(carry.import_)
