"""`llm-edit tune`: layers and rates for a model, tried on facts. Imports torch only to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import completing
from .bench_common import command
from .checking import check, check_each
from .common import assistant_options, drive, loading, options, print_json

if TYPE_CHECKING:
    from engine.bench.tune import Tried


def _positions(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not LAYER,LAYER,...", context, option) from None


def _axes(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for text in texts:
        key, _, rest = text.partition("=")
        values = tuple(part.strip() for part in rest.split(",") if part.strip())
        if not key.strip() or not values:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE,VALUE,...", context, option)
        found[key.strip()] = values
    return found


@click.command()
@click.argument("method", shell_complete=completing.methods)
@click.option("--data", required=True, help="A data file, or its name in LLM_EDIT_DATA; not one "
              "that the edits are judged on later.")  # fmt: skip
@click.option("--n", type=click.IntRange(min=1), default=50, show_default=True,
              help="Records, which only the best settings see all of.")  # fmt: skip
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first K.")
@click.option("--layers", callback=_positions, metavar="LAYER,...",
              help="Where the lowest edited layer is tried; default: over the depth.")  # fmt: skip
@click.option("--try", "values", multiple=True, callback=_axes, metavar="KEY=VALUE,...",
              help="Try these values instead of layers and rates; may be repeated.")  # fmt: skip
@click.option("--chat", is_flag=True, help="Ask prompts as chat turns, not as statements.")
@click.option("--force", is_flag=True, help="Replace a preset that is there already.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the results; default: tune in the home folder. A run that was "
              "interrupted goes on from there.")  # fmt: skip
@options("tuning")
def tune(
    method: str,
    data: str,
    n: int,
    skip: int,
    layers: tuple[int, ...],
    values: dict[str, tuple[str, ...]],
    chat: bool,
    force: bool,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Find layers and learning rate of METHOD for a model, and keep them as your preset.

    Exit code 1: with no setting did an edit take, and nothing was written.
    """
    from engine import paths
    from engine.evaluate import datasets

    wanted = assistant_options({**given, "method": method})
    check(wanted)
    tried_values = ({**wanted.hp, key: value} for key, each in values.items() for value in each)
    check_each(wanted, ((method, hp) for hp in tried_values))
    _place(method, wanted.model, force)  # before minutes of work, not behind them
    found = datasets.load(datasets.find(data), n, skip=skip)
    for reason, count in found.skipped.items():
        click.echo(f"left out {count} records: {reason}", err=True)

    from engine.bench import preset, results, runner
    from engine.bench import tune as tuning

    lm = drive(loading(wanted), "tune")
    base = runner.Settings(method=method, overrides=wanted.hp, chat=chat, seed=wanted.seed)
    plan = tuning.Plan(base=base, layers=layers, values=values)
    told = base.to_json(lm, found) | {"protocol": "tune"}
    folder = out or paths.home() / "tune"
    file = folder / results.name_of("tune", found.name, method, lm.name, settings=told)
    stored = results.Results.open(file, "tune", told, results.environment(command()))
    try:
        tried = drive(tuning.run(lm, found.records, plan, stored), "tune")
    finally:
        click.echo(f"results: {file}", err=True)
    before = next(t for t in tried if not t.setting)
    best = tried[0]
    path = None
    if best.score > 0:
        path = _place(method, lm.name, force)
        preset.write(path, preset.text(lm, plan, found, best, before, command()))
    if as_json:
        print_json(_summary(tried, path, file, told))
    else:
        _tell(tried, path)
    return 0 if path else 1


def _place(method: str, model: str, force: bool) -> Path:
    """Where the preset goes. Raises BadInput when one is there and is not to be replaced."""
    from engine.config import own_file
    from engine.errors import BadInput

    path = own_file(method, model)
    if path.exists() and not force:
        raise BadInput(
            f"{path} is there already.", "--force begins with it, and replaces it at the end."
        )
    return path


def _tell(tried: Sequence[Tried], path: Path | None) -> None:
    from engine.bench import preset, report, tune

    head = ["setting", "n", "score", "said", "said, rephrased", "neighbours kept", "s/edit"]
    rows = [head]
    for t in tried:
        numbers = (preset.percent(x) for x in (t.score, t.said, t.rephrased, t.kept))
        rows.append([tune.name(t.setting), str(t.n), *numbers, f"{t.seconds:.2f}"])
    click.echo(report.table(rows))
    click.echo("")
    if path is None:
        click.echo("No setting has a score above 0: nothing was written.")
        return
    kept = "" if tried[0].setting else " Nothing is better than what was in force."
    click.echo(f"best: {tune.name(tried[0].setting)}.{kept}\nwritten: {path}")


def _summary(
    tried: Sequence[Tried], path: Path | None, file: Path, told: dict[str, Any]
) -> dict[str, Any]:
    rows = [dataclasses.asdict(t) for t in tried]
    best = dict(tried[0].setting) if path else None
    return {"best": best, "written": path, "results": file, "tried": rows, "settings": told}
