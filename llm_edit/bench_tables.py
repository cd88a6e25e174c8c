"""`llm-edit bench all` and `bench sequence`: methods, and settings of them, side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.placing import check_device

from . import pictures
from .bench_common import OUT, command, run_job, tell
from .bench_common import arms as arms_option
from .checking import check_each
from .common import assistant_options, loading, options, print_json

if TYPE_CHECKING:
    from tui.options import Options

ARMS = arms_option("A row of its own settings, its method= among them; may be repeated.")


def _writable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Said before hours of work, not behind them."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.parent} is no folder.", context, option)
    return path


@click.command("all")
@click.option("--data", "names", multiple=True, required=True, help="A data file; may be repeated.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Records.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first K.")
@click.option("--methods", default="", help="Names with commas between; default: every method.")
@ARMS
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), callback=_writable,
              help="Markdown file.")  # fmt: skip
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
    _check_settings(wanted, every, arms)
    lm = run_job(loading(wanted))
    from engine.bench import report, runner

    rows = _possible(lm, every)
    parts: list[str] = []
    for found in sets:
        run = partial(runner.run, lm, found.records, unedited={})  # of all rows together
        settings = partial(runner.Settings, seed=wanted.seed)
        stored = _run_each(lm, found, rows, wanted.hp, "run", settings, run, out)
        parts.append(f"## {found.name}, {lm.name}\n\n{report.side_by_side(stored, n)}")
    text = "\n\n".join(parts) + "\n"
    if as_json:
        print_json({"tables": parts})
    else:
        click.echo(text)
    if write is not None:
        write.write_text(text, encoding="utf-8")
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


def _check_settings(
    wanted: Options, rows: dict[str, dict[str, str]], arms: dict[str, dict[str, str]]
) -> None:
    """Of the rows that are asked for one by one: of the others some may be left out."""
    asked = [{**wanted.hp, **row} for name, row in rows.items() if name in arms or len(rows) == 1]
    check_device(wanted.device)
    check_each(wanted, ((hp.pop("method"), hp) for hp in asked))


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


def _check_batches(rows: dict[str, dict[str, str]]) -> None:
    from engine import methods as registry

    for name, pairs in rows.items():
        if not registry.get(pairs["method"]).batch:
            raise click.UsageError(f"{name}: {pairs['method']} edits one fact at a time.")


def _run_each(
    lm: Any,
    data: Any,
    rows: dict[str, dict[str, str]],
    hp: dict[str, str],
    kind: str,
    settings: Callable[..., Any],
    run: Callable[[Any, Any], Any],
    out: Path,
) -> dict[str, Any]:
    """The results of every row of a table, by its name.

    hp        set for all of them; a row's own goes before
    settings  makes those of the benchmark from `method` and `overrides`
    run       the work, from settings and the results that it adds to
    """
    from engine.bench import results

    stored: dict[str, Any] = {}
    for name, pairs in rows.items():
        overrides = {**hp, **pairs}
        own = settings(method=overrides.pop("method"), overrides=overrides)
        told = own.to_json(lm, data)
        about = (data.name,) if kind == "run" else (kind, data.name)
        file = out / results.name_of(*about, own.method, lm.name, settings=told)
        stored[name] = results.Results.open(file, kind, told, results.environment(command()))
        click.echo(f"{data.name}: {name}", err=True)
        run_job(run(own, stored[name]))
    return stored


@click.command("sequence")
@click.option("--data", required=True, help="A data file, or its name in LLM_EDIT_DATA.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Facts.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="K facts an edit, with methods for many.")  # fmt: skip
@click.option("--resolve", is_flag=True, help="Look at them solved again together, too.")
@click.option("--resolve-every", type=click.IntRange(min=2), metavar="K",
              help="Solve them again after every K facts, and go on from there.")  # fmt: skip
@click.option("--again", type=click.IntRange(min=0), default=0, metavar="ROUNDS",
              help="Then insert facts that are not said anew, so often at most.")  # fmt: skip
@click.option("--ridge", type=click.FloatRange(min=0), default=0.1, show_default=True,
              help="How exactly facts are asked for when solved again: as of resolve.")  # fmt: skip
@click.option("--fit", type=click.IntRange(min=0), default=0, metavar="STEPS",
              help="Then fit all facts together, so long: as of resolve.")  # fmt: skip
@click.option("--fit-contexts", type=click.IntRange(min=0), default=0, metavar="N",
              help="Behind so many generated contexts, too: as of resolve.")  # fmt: skip
@click.option("--text", default="", help="Text whose last passages perplexity is measured on: an "
              "asset or a file; default: a page of prose.")  # fmt: skip
@click.option("--passages", type=click.IntRange(min=1), metavar="N",
              help="So many of its passages, each of 128 tokens at most; default: 40.")  # fmt: skip
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
    batch: int,
    resolve: bool,
    resolve_every: int | None,
    again: int,
    ridge: float,
    fit: int,
    fit_contexts: int,
    text: str,
    passages: int | None,
    methods: str,
    arms: dict[str, dict[str, str]],
    plots: tuple[Path, ...],
    out: Path,
    as_json: bool,
    **given: Any,
) -> int:
    """N facts one after the other, none undone; all are asked for again on the way.

    Several --methods, or settings (--arm), each begin with the unedited model, and are told side
    by side.
    """
    if again and not resolve_every:
        raise click.UsageError("--again goes with --resolve-every.")
    if fit and not (resolve or resolve_every):
        raise click.UsageError("--fit goes with --resolve or --resolve-every.")
    if fit_contexts and not fit:
        raise click.UsageError("--fit-contexts goes with --fit.")
    if passages and not text:
        raise click.UsageError("--passages goes with --text.")
    if plots:
        pictures.require_matplotlib("pip install 'llm-edit-chat[bench]', or leave out --plot.")
    from engine.evaluate import datasets

    found = datasets.load(datasets.find(data), n)
    wanted = assistant_options(given)
    every = _rows(wanted.method, methods, arms, [wanted.method])
    if batch > 1:
        _check_batches(every)
    _check_settings(wanted, every, arms)
    lm = run_job(loading(wanted))
    from engine.bench import courses, report, sequence
    from engine.statistics import HELD_OUT

    settings = partial(
        sequence.Settings,
        seed=wanted.seed,
        batch=batch,
        resolve=resolve,
        every=resolve_every or 0,
        again=again,
        ridge=ridge,
        fit=fit,
        behind=fit_contexts,
        text=text,
        passages=passages or HELD_OUT,
    )
    run = partial(sequence.run, lm, found.records)
    rows = _possible(lm, every)
    stored = _run_each(lm, found, rows, wanted.hp, "sequence", settings, run, out)
    if len(stored) == 1:
        tell(report, next(iter(stored.values())), as_json)
    elif as_json:
        print_json({name: report.summary(one) for name, one in stored.items()})
    else:
        click.echo(courses.side_by_side(stored))
    pictures.write(plots, lambda path: courses.draw(stored, path))
    return 0
