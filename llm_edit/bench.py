"""`llm-edit bench`: edit, measure, undo, prove the undo. Imports torch only to run."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import click

from . import pictures
from .common import assistant_options, drive, loading, options, print_json

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-results"),
    show_default=True,
    help="Folder of the results; a run that was interrupted goes on from there.",
)


def _arm(context: click.Context, option: click.Parameter, text: str) -> tuple[str, dict[str, str]]:
    """NAME:KEY=VALUE,KEY=VALUE; nothing after the colon is the method as it is."""
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair.strip()]
    if not colon or not name.strip() or not all(k.strip() and e for k, e, _ in pairs):
        raise click.BadParameter(f"{text!r} is not NAME:KEY=VALUE,...", context, option)
    return name.strip(), {k.strip(): v.strip() for k, _, v in pairs}


def _arms(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    return dict(_arm(context, option, text) for text in texts)


ARMS = click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    callback=_arms,
    help="A row of its own settings, its method= among them; may be repeated.",
)


@click.group()
def bench() -> None:
    """Measure how well, how fast and how exactly a method edits."""


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
    wanted, lm = _load(given)
    from engine.bench import report, results, runner

    settings = runner.Settings(
        method=wanted.method, overrides=wanted.hp, chat=chat, seed=wanted.seed
    )
    told = settings.to_json(lm, found)
    file = out / results.name_of(found.name, wanted.method, lm.name, settings=told)
    stored = results.Results.open(file, "run", told, results.environment(_command()))
    _drive(runner.run(lm, found.records, settings, stored))
    _tell(report, stored, as_json, len(found.records))
    return 0


@bench.command("all")
@click.option("--data", "names", multiple=True, required=True, help="A data file; may be repeated.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Records.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first K.")
@click.option("--methods", default="", help="Names with commas between; default: every method.")
@ARMS
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="Markdown file.")
@OUT
@options("model")
def all_command(
    names: tuple[str, ...],
    n: int,
    skip: int,
    methods: str,
    arms: dict[str, dict[str, str]],
    write: Path | None,
    out: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """`bench run` with every method on each data file, side by side in one table.

    With --arm, settings side by side instead (and the --methods that are named). Methods that
    need training, or do not edit this kind of model, are left out and named.
    """
    from engine import methods as registry
    from engine.evaluate import datasets

    wanted = assistant_options(given)
    every = _rows(wanted.method, methods, arms, list(registry.methods()))
    sets = [datasets.load(datasets.find(name), n, skip=skip) for name in names]
    lm = _drive(loading(wanted))
    from engine.bench import report, results, runner

    rows = _possible(lm, every)
    parts: list[str] = []
    for found in sets:
        stored: dict[str, Any] = {}
        unedited: dict[str, Any] = {}
        for name, pairs in rows.items():
            overrides = {**wanted.hp, **pairs}
            settings = runner.Settings(
                method=overrides.pop("method"), overrides=overrides, seed=wanted.seed
            )
            told = settings.to_json(lm, found)
            file = out / results.name_of(found.name, settings.method, lm.name, settings=told)
            stored[name] = results.Results.open(file, "run", told, results.environment(_command()))
            click.echo(f"{found.name}: {name}", err=True)
            _drive(runner.run(lm, found.records, settings, stored[name], unedited))
        parts.append(f"## {found.name}, {lm.name}\n\n{report.side_by_side(stored, n)}")
    text = "\n\n".join(parts) + "\n"
    if write is not None:
        write.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"tables": parts})
    else:
        click.echo(text)
    return 0


def _rows(
    method: str, methods: str, arms: dict[str, dict[str, str]], default: list[str]
) -> dict[str, dict[str, str]]:
    """What a table compares, by the names of its rows: a method and what is set of it.

    method   that of an arm that names none
    default  methods where neither some nor arms are named
    Raises for a method that there is not.
    """
    from engine import methods as registry

    named = [m.strip() for m in methods.split(",") if m.strip()]
    rows = {name: {"method": name} for name in named or ([] if arms else default)}
    rows |= {name: {"method": method, **pairs} for name, pairs in arms.items()}
    for pairs in rows.values():
        registry.get(pairs["method"])
    return rows


def _possible(lm: Any, rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The rows whose method edits this model as it is. Says which are left out."""
    from engine import methods as registry
    from engine.quantised import is_quantised

    quantised, found = is_quantised(lm.model), {}
    for name, pairs in rows.items():
        info = registry.get(pairs["method"])
        families = lm.arch.model_type in info.families
        if info.training or not families or (info.dense and quantised):
            click.echo(f"left out: {name}", err=True)
        else:
            found[name] = pairs
    if not found:
        raise click.UsageError("none of these methods edits this model; see llm-edit methods.")
    return found


@bench.command("sequence")
@click.option("--data", required=True, help="A data file, or its name in LLM_EDIT_DATA.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Edits.")
@click.option("--resolve", is_flag=True, help="Look at them solved again together, too.")
@click.option("--methods", default="", help="Names with commas between; default: --method.")
@ARMS
@click.option("--plot", "plots", multiple=True, callback=pictures.checked,
              type=click.Path(path_type=Path, dir_okay=False),
              help="Draw the table too, .svg or .png; repeatable.")  # fmt: skip
@OUT
@options("model")
def sequence_command(
    data: str,
    n: int,
    resolve: bool,
    methods: str,
    arms: dict[str, dict[str, str]],
    plots: tuple[Path, ...],
    out: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """N edits one after the other, none undone; all are asked for again on the way.

    Several --methods, or settings (--arm), each begin with the unedited model, and are told side
    by side.
    """
    if plots:
        pictures.require_matplotlib("pip install 'llm-edit-chat[bench]', or leave out --plot.")
    from engine.evaluate import datasets

    found = datasets.load(datasets.find(data), n)
    wanted = assistant_options(given)
    every = _rows(wanted.method, methods, arms, [wanted.method])
    lm = _drive(loading(wanted))
    from engine.bench import courses, report, results, sequence

    stored: dict[str, Any] = {}
    for name, pairs in _possible(lm, every).items():
        overrides = {**wanted.hp, **pairs}
        settings = sequence.Settings(
            method=overrides.pop("method"), overrides=overrides, seed=wanted.seed, resolve=resolve
        )
        told = settings.to_json(lm, found)
        file = out / results.name_of(
            "sequence", found.name, settings.method, lm.name, settings=told
        )
        stored[name] = results.Results.open(file, "sequence", told, results.environment(_command()))
        click.echo(f"{found.name}: {name}", err=True)
        _drive(sequence.run(lm, found.records, settings, stored[name]))
    if len(stored) == 1:
        _tell(report, next(iter(stored.values())), as_json)
    elif as_json:
        print_json({name: report.summary(one) for name, one in stored.items()})
    else:
        click.echo(courses.side_by_side(stored))
    pictures.write(plots, lambda path: courses.draw(stored, path))
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
    wanted, lm = _load(given)
    from engine.bench import report, results, speed

    plan = speed.Plan(
        method=wanted.method, overrides=wanted.hp, facts=facts, plain=plain, batch=batch or 0
    )
    told = speed.settings_of(lm, plan)
    # Times belong to their moment: every run has a file of its own.
    stamp = time.strftime("%Y%m%d-%H%M%S")
    file = out / results.name_of("speed", wanted.method, lm.name, stamp, settings=told)
    stored = results.Results.open(file, "speed", told, results.environment(_command()))
    rows = _drive(speed.check(lm, plan, stored)) if check else []
    if not check:
        _drive(speed.run(lm, plan, stored))
    _tell(report, stored, as_json)
    return 0 if all(row["equal"] for row in rows) else 1


@bench.command("chat")
@click.option("--list", "path", type=click.Path(path_type=Path), help="Another list of questions.")
@click.option("--n", type=click.IntRange(min=1), help="The first N questions only.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    callback=_arms,
    help="Settings to compare; default: with and without the anchored solve.",
)
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
    wanted, lm = _load(given)
    from engine.bench import chatlist, report, results

    items = chatlist.read_list(path)[:n]
    every = {name: {**wanted.hp, **pairs} for name, pairs in (arms or chatlist.ARMS).items()}
    same = {"method": wanted.method, "arms": every, "seed": wanted.seed}
    told = chatlist.settings_of(lm, path=path, **same)
    file = out / results.name_of("chat", wanted.method, lm.name, settings=told)
    stored = results.Results.open(file, "chat", told, results.environment(_command()))
    _drive(chatlist.run(lm, items, stored, **same))
    _tell(report, stored, as_json)
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
        _tell(report, results, as_json, n)


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


def _load(given: dict[str, Any]) -> tuple[Any, Any]:
    """The settings, and the model. Imports torch."""
    wanted = assistant_options(given)
    return wanted, _drive(loading(wanted))


def _drive(job: Generator[Any, None, T]) -> T:
    """Run a job to its end. The steps of a hundred edits are no news."""
    return drive(job, "bench", _news)


def _news(event: Any) -> bool:
    told: bool = event.kind == "Loading" or (
        event.kind == "Note" and event.text.startswith(("record ", "warm-up"))
    )
    return told


def _tell(report: Any, results: Any, as_json: bool, n: int | None = None) -> None:
    if as_json:
        print_json(report.summary(results, n))
    else:
        click.echo(report.render(results, n))
        click.echo(f"results: {results.path}", err=True)


def _command() -> str:
    """The command as it was typed, without the path of the program."""
    return shlex.join(["llm-edit", *sys.argv[1:]])
