"""`llm-edit export`: the corrections of a session, for use elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.placing import check_device
from tui.console import printable, table
from tui.narrate import count, size

from . import completing
from .common import finished, narrator, options, print_json, stored

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.export.asking import Asked
    from engine.export.card import Base
    from engine.requests import Fact
    from sessions.rows import EditRow, Session
    from sessions.store import Store

ANSWER = 40  # characters of an answer in the table


@dataclass(frozen=True)
class Kept:
    """What the record says of a session: the edits that act at its tip, in order."""

    session: Session
    rows: list[EditRow]
    facts: list[Fact]
    edits: list[Edit]  # with tensors; none where the format needs none
    superseded: list[str]  # ids of edits that a later one of the same question replaces


@click.command()
@click.argument("session", shell_complete=completing.sessions)
@click.option(
    "--format",
    "form",
    type=click.Choice(["hf", "lora", "jsonl"]),
    required=True,
    help="A merged checkpoint, a LoRA adapter, or the facts.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder; with jsonl also a file whose name ends in .jsonl.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16"]),
    help="Of a merged checkpoint; fp32 unless said: small updates vanish in bf16.",
)
@click.option("--device", help="Where a merged checkpoint is asked: cpu, cuda, mps or auto.")
@options("name")
def export(
    session: str,
    form: str,
    out: Path,
    dtype: str | None,
    device: str | None,
    model: str | None,
    as_json: bool,
) -> int:
    """Write the active edits of SESSION (title, id, or part of an id) for use elsewhere.

    hf: the model with the edits in its weights; it is loaded again and asked every fact.
    lora: a PEFT adapter for the unchanged model. jsonl: facts for llm-edit edit --file.
    Exit code 1: a fact that the edited model says was lost in the merged checkpoint.
    """
    if form != "hf" and (dtype or device or model):
        raise click.UsageError("--dtype, --device and --model belong to --format hf.")
    check_device(device or "auto")
    kept = _kept(session, tensors=form != "jsonl")
    told: dict[str, Any] = {
        "session": kept.session.id,
        "format": form,
        "out": str(out),
        "model": kept.session.model.name,
        "fingerprint": kept.session.model.fingerprint,
        "edits": [row.id for row in kept.rows],
        "superseded": kept.superseded,
    }
    lost: list[str] = []
    if form == "jsonl":
        told |= _facts(kept, out)
    elif form == "lora":
        told |= _adapter(kept, out)
    else:
        rows = _checkpoint(kept, out, dtype or "fp32", device or "auto", model)
        lost = [row.name for row in rows if row.lost]
        told |= {
            "dtype": dtype or "fp32",
            "facts": [row.to_json() for row in rows],
            "same": sum(row.same for row in rows),
            "lost": lost,
        }
    told["bytes"] = _size(out)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{_what(told)} in {out} ({size(told['bytes'])})")
        if kept.superseded:
            n = count(len(kept.superseded), "edit")
            click.echo(f"without {n} that later ones of the same question replace", err=True)
    return 1 if lost else 0


def _kept(ref: str, *, tensors: bool) -> Kept:
    """Raises UnknownSession, BadInput (no active edits), CorruptTensors, MissingResource."""
    from engine.errors import BadInput
    from engine.requests import Fact, Request
    from tui.opening import ledger_at

    with stored() as store:
        session = store.session(ref)
        active = store.active_edits(session.id)
        if not active:
            name = session.title or session.short
            remedy = _undone(store, session)
            raise BadInput(f"session {name} has no active edits to export.", remedy)
        superseded = list(store.superseded(session.id))
        rows = [row for row in active if row.id not in superseded]
        edits = list(ledger_at(store, session).acting) if tensors else []
        by_id = {row.id: row for row in store.edits(session.id)}  # dropped ones among them
    facts = [
        Fact(request=Request.from_json(r), method=made.method, hparams=made.body["hparams"])
        for row in rows
        for made in _as_made(row, by_id)
        for r in made.body["requests"]
    ]
    return Kept(session, rows, facts, edits, superseded)


def _as_made(row: EditRow, by_id: Mapping[str, EditRow]) -> Iterator[EditRow]:
    """The edit; where it is others solved again, those: a method makes them, not `resolve`."""
    from engine.ledger import RESOLVED

    if row.method != RESOLVED:
        yield row
        return
    for id in row.supersedes:
        yield from _as_made(by_id[id], by_id)


def _undone(store: Store, session: Session) -> str:
    if store.undone_edits(session.id):
        return f"llm-edit redo --session {session.short} puts undone ones back."
    return "llm-edit edit and llm-edit chat make some."


def _base(kept: Kept, model: str | None) -> Base:
    """The model of a session; `model` is where it is now, if that is another place."""
    from engine import catalog
    from engine.errors import LLMEditError
    from engine.export.card import Base
    from tui.opening import where

    row = kept.session.model
    name, hub, revision = model or row.name, "", None
    try:
        name = model or where(row.name, row.source)
        source = catalog.resolve_model(name)
        if source.kind == "hub":
            hub, revision = source.place, source.revision
    except LLMEditError:  # it is gone: an adapter does without, and a checkpoint says so itself
        pass
    return Base(
        name=name,
        source=row.source,
        fingerprint=row.fingerprint,
        model_type=row.model_type,
        hub=hub,
        revision=revision,
        load_in=str(row.info.get("load_in", "")),
    )


def _facts(kept: Kept, out: Path) -> dict[str, Any]:
    from engine.export.facts import lines, write_facts
    from engine.export.folder import new_folder, write_new

    if out.suffix == ".jsonl":
        write_new(out, lines(kept.facts))
    else:
        with new_folder(out) as folder:
            write_facts(kept.facts, folder)
    return {"facts": [fact.to_json() for fact in kept.facts]}


def _adapter(kept: Kept, out: Path) -> dict[str, Any]:
    from engine.export.adapter import write_adapter
    from engine.export.folder import new_folder

    with new_folder(out) as folder:
        sites = write_adapter(kept.edits, kept.facts, _base(kept, None), folder)
    return {"facts": [fact.to_json() for fact in kept.facts], "ranks": sites}


def _checkpoint(
    kept: Kept, out: Path, dtype: str, device: str, model: str | None
) -> Sequence[Asked]:
    """Write it, and say on stderr what became of each fact."""
    from engine.export.checkpoint import export_checkpoint
    from engine.worker import Worker

    base = _base(kept, model)
    worker = Worker()
    try:
        job = worker.submit(
            "load",
            lambda: export_checkpoint(
                base, kept.edits, kept.facts, out, dtype=dtype, device=device
            ),
        )
        rows = finished(job, narrator())
    finally:
        worker.close()
    for line in table(("fact", "edited model", "checkpoint", ""), [_line(row) for row in rows]):
        click.echo(printable(line), err=True)
    return rows


def _line(row: Asked) -> tuple[str, str, str, str]:
    live, merged = row.said
    if row.lost:
        verdict = "LOST"
    elif not live and not merged:
        verdict = "not said by either"
    elif not live:
        verdict = "said by the checkpoint only"
    else:
        verdict = "same" if row.same else "said, in other words"
    return row.name, _short(row.live.text), _short(row.merged.text), verdict


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ANSWER else line[: ANSWER - 1] + "…"


def _what(told: dict[str, Any]) -> str:
    facts = count(len(told["facts"]), "fact")
    if told["format"] == "jsonl":
        return facts
    if told["format"] == "lora":
        ranks = ", ".join(f"{site}: {rank}" for site, rank in told["ranks"].items())
        return f"LoRA adapter with {facts} (rank at {ranks})"
    verdict = f"{told['same']} answered the same"
    if told["lost"]:
        verdict += f", {len(told['lost'])} LOST: {printable('; '.join(told['lost']))}"
    return f"{told['dtype']} checkpoint with {facts}, {verdict};"


def _size(out: Path) -> int:
    from engine.export.folder import size_of

    return out.stat().st_size if out.is_file() else size_of(out)
