"""`llm-edit sessions export` and `import`: a session in a file of its own, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tui.console import printable
from tui.narrate import size

from . import completing
from .common import options, print_json, stored

if TYPE_CHECKING:
    from sessions.recording import Recording
    from sessions.rows import EditRow

FORMS = ("bundle", "md", "json")
ENDINGS = {"": "bundle", ".llmedit": "bundle", ".md": "md", ".markdown": "md", ".json": "json"}
STDOUT = Path("-")


@click.command()
@click.argument("session", shell_complete=completing.sessions)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="bundle (all of it, for import), md (to read), json (all texts and numbers). "
    "Unless said: as --out ends, else bundle.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A file, or - for stdout. Unless said: a bundle is named after its session; md and json "
    "go to stdout.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@options()
def export(session: str, form: str | None, out: Path | None, force: bool, as_json: bool) -> None:
    """Write SESSION (title, id, or part of an id) to a file.

    For its edits in a model's weights, or as facts, see llm-edit export.
    """
    chosen = form or _form_of(out)
    if chosen == "bundle" and out == STDOUT:
        raise click.UsageError("a bundle is written to a file: name one with --out.")
    with stored() as store:
        found = store.recording(session)
        if out is None:
            out = _default(found, chosen)
        if out == STDOUT:
            if as_json:
                raise click.UsageError("--json tells of a file: name one with --out.")
            text = _text(found, chosen)
            sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
            return
        out = out.expanduser()
        if os.path.isdir(out):
            raise click.UsageError(f"{out} is a folder: name a file in it.")
        if os.path.lexists(out) and not force:
            raise click.UsageError(f"{out} is there already; --force replaces it.")
        _write(found, chosen, out)  # tensor files are read from the store
    if as_json:
        told = {"session": found.session.id, "format": chosen, "out": str(out)}
        print_json(told | {"bytes": out.stat().st_size})
    else:
        click.echo(f"{_named(found)} is in {out} ({size(out.stat().st_size)})")


def _form_of(out: Path | None) -> str:
    """What the name of a file asks for."""
    suffix = out.suffix if out is not None else ""
    if suffix.casefold() not in ENDINGS:
        ways = "Take .llmedit, .md or .json, or say --format."
        raise click.UsageError(f"no format has the ending {suffix!r}. {ways}")
    return ENDINGS[suffix.casefold()]


def _default(found: Recording, form: str) -> Path:
    from sessions import bundle

    if form != "bundle":
        return STDOUT
    return Path(bundle.file_name(found.session.title, found.session.short))


def _text(found: Recording, form: str) -> str:
    from sessions import markdown, plainform
    from sessions.codec import dumps

    return markdown.to_markdown(found) if form == "md" else dumps(plainform.whole(found)) + "\n"


def _write(found: Recording, form: str, out: Path) -> None:
    from sessions import bundle
    from sessions.files import replacing

    if form == "bundle":
        bundle.write(found, out)
        return
    text = _text(found, form).encode()
    with replacing(out) as file:
        file.write(text)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--title", help="A title instead of its own.")
@click.option("--copy", is_flag=True, help="As a session of its own, even if it is here already.")
@click.option("--any-model", is_flag=True,
              help="Also where the name of its model stands for another one here.")  # fmt: skip
@options()
def import_(file: Path, title: str | None, copy: bool, any_model: bool, as_json: bool) -> None:
    """Add the session in FILE, a bundle (.llmedit), to those that are here: whole or not at all.

    Nothing in a bundle is run. A session that is here already stays as it is.
    """
    from sessions import bundle

    found = bundle.read(file.expanduser())
    with stored() as store:
        session, new = store.add_recording(
            found, of=_fingerprint, title=title, copy=copy, any_model=any_model
        )
    if as_json:
        print_json({"id": session.id, "title": session.title, "new": new})
        return
    name = printable(session.title or session.short)
    if new:
        click.echo(f"imported {name}: llm-edit chat --session {session.short} goes on with it")
    else:
        click.echo(f"{name} is here already; nothing was changed (--copy makes another of it)")


def _fingerprint(edits: Sequence[EditRow]) -> str:
    from engine.ledger import fingerprint_of

    return fingerprint_of(edit.id for edit in edits)


def _named(found: Recording) -> str:
    return printable(found.session.title or found.session.short)
