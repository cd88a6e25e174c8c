"""`llm-edit bench`: edit, measure, undo, prove the undo. Imports torch only to run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .bench_common import OUT, command, load, run_job, tell
from .bench_common import arms as arms_option
from .bench_tables import all_command, sequence_command
from .common import options, print_json


@click.group()
def bench() -> None:
    """Measure how well, how fast and how exactly a method edits."""


bench.add_command(all_command)
bench.add_command(sequence_command)


@bench.command("run")
@click.option("--data", required=True, help="A data file, or its name in LLM_EDIT_DATA.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Records.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first K.")
@click.option("--chat", is_flag=True, help="Ask prompts as chat turns, not as statements.")
@OUT
@options("model")
def run_command(
    data: str, n: int, skip: int, chat: bool, out: Path, as_json: bool, **given: Any
) -> int:
    """Edit N facts of a data set, one at a time, each undone before the next.

    Exit code 1: an undo was not exact.
    """
    from engine.evaluate import datasets

    found = datasets.load(datasets.find(data), n, skip=skip)
    for reason, count in found.skipped.items():
        click.echo(f"left out {count} records: {reason}", err=True)
    wanted, lm = load(given)
    from engine.bench import report, results, runner

    settings = runner.Settings(
        method=wanted.method, overrides=wanted.hp, chat=chat, seed=wanted.seed
    )
    told = settings.to_json(lm, found)
    file = out / results.name_of(found.name, wanted.method, lm.name, settings=told)
    stored = results.Results.open(file, "run", told, results.environment(command()))
    run_job(runner.run(lm, found.records, settings, stored))
    tell(report, stored, as_json, len(found.records))
    return 0


@bench.command("speed")
@click.option("--facts", type=click.IntRange(1, 32), default=20, show_default=True, help="A kind.")
@click.option("--batch", type=click.IntRange(2, 32), help="Also N statements in one edit.")
@click.option("--plain/--no-plain", default=True, help="Time the plain loop beside it.")
@click.option("--check", is_flag=True, help="Compare fast and plain results (float32) instead.")
@OUT
@options("model")
def speed_command(
    facts: int,
    batch: int | None,
    plain: bool,
    check: bool,
    out: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """Seconds from request to changed model, warm, for statements and chat; and memory.

    Exit code 1: with --check, fast and plain results differ.
    """
    wanted, lm = load(given)
    from engine.bench import report, results, speed

    plan = speed.Plan(
        method=wanted.method, overrides=wanted.hp, facts=facts, plain=plain, batch=batch or 0
    )
    told = speed.settings_of(lm, plan)
    # Times belong to their moment: every run has a file of its own.
    stamp = time.strftime("%Y%m%d-%H%M%S")
    file = out / results.name_of("speed", wanted.method, lm.name, stamp, settings=told)
    stored = results.Results.open(file, "speed", told, results.environment(command()))
    rows = run_job(speed.check(lm, plan, stored)) if check else []
    if not check:
        run_job(speed.run(lm, plan, stored))
    tell(report, stored, as_json)
    return 0 if all(row["equal"] for row in rows) else 1


@bench.command("chat")
@click.option("--list", "path", type=click.Path(path_type=Path), help="Another list of questions.")
@click.option("--n", type=click.IntRange(min=1), help="The first N questions only.")
@arms_option("Settings to compare; default: with and without the anchored solve.")
@OUT
@options("model")
def chat_command(
    path: Path | None,
    n: int | None,
    arms: dict[str, dict[str, str]],
    out: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """Correct 40 chat questions one at a time: do they take, and do neighbours stay?

    Exit code 1: an undo was not exact.
    """
    wanted, lm = load(given, arms)
    from engine.bench import chatlist, report, results

    items = chatlist.read_list(path)[:n]
    every = {name: {**wanted.hp, **pairs} for name, pairs in (arms or chatlist.ARMS).items()}
    same = {"method": wanted.method, "arms": every, "seed": wanted.seed}
    told = chatlist.settings_of(lm, path=path, **same)
    file = out / results.name_of("chat", wanted.method, lm.name, settings=told)
    stored = results.Results.open(file, "chat", told, results.environment(command()))
    run_job(chatlist.run(lm, items, stored, **same))
    tell(report, stored, as_json)
    return 0


@bench.command("report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--n", type=click.IntRange(min=1), help="The first N records only.")
@click.option("--compare", is_flag=True, help="Side by side, over the records that all share.")
@options()
def report_command(files: tuple[Path, ...], n: int | None, compare: bool, as_json: bool) -> None:
    """Print the tables of stored results again (with --json one object a file)."""
    if compare and as_json:
        raise click.UsageError("--compare prints a table; leave out --json.")
    from engine.bench import report

    found = report.read(files)
    if compare:
        click.echo(report.compare(found, n))
        return
    for results in found:
        tell(report, results, as_json, n)


@bench.command("list")
@options()
def list_command(as_json: bool) -> None:
    """The protocols, and the data files that LLM_EDIT_DATA holds."""
    from engine.evaluate import datasets

    where = datasets.folder()
    rows = []
    for path in datasets.available(where) if where and where.is_dir() else []:
        told = datasets.describe(path)
        if told:
            rows.append({"file": path.name, "format": told[0], "records": told[1]})
    if as_json:
        print_json({"protocols": PROTOCOLS, "data": rows})
        return
    for name, what in PROTOCOLS.items():
        click.echo(f"{name:8} {what}")
    if not rows:
        click.echo("no data files: set LLM_EDIT_DATA to a folder that holds some", err=True)
    for row in rows:
        click.echo(f"{row['file']}  {row['format']}  {row['records']} records")


PROTOCOLS = {
    "run": "single edits over a data set, each undone before the next",
    "all": "the same with every method, side by side",
    "sequence": "edits one after the other, none undone",
    "speed": "seconds and memory of an edit, fast path beside plain loop",
    "chat": "40 questions corrected in chat, with five neighbours each",
}
