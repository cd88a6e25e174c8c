"""What the `bench` commands share: their options, and how they run and tell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from .checking import check, check_each
from .common import assistant_options, drive, loading, print_json

T = TypeVar("T")

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


def arms(told: str) -> Callable[[Any], Any]:
    """The option --arm: settings by a name of theirs."""
    return click.option(
        "--arm", "arms", multiple=True, metavar="NAME:KEY=VALUE,...", callback=_arms, help=told
    )


def load(
    given: dict[str, Any], arms: Mapping[str, dict[str, str]] | None = None
) -> tuple[Any, Any]:
    """The settings, those of `arms` checked with them, and the model. Imports torch."""
    wanted = assistant_options(given)
    check(wanted)
    check_each(wanted, ((None, {**wanted.hp, **pairs}) for pairs in (arms or {}).values()))
    return wanted, run_job(loading(wanted))


def run_job(job: Generator[Any, None, T]) -> T:
    """Run a job to its end. The steps of a hundred edits are no news."""
    return drive(job, "bench", _news)


def _news(event: Any) -> bool:
    told: bool = event.kind == "Loading" or (
        event.kind == "Note" and event.text.startswith(("record ", "warm-up"))
    )
    return told


def tell(report: Any, results: Any, as_json: bool, n: int | None = None) -> None:
    if as_json:
        print_json(report.summary(results, n))
    else:
        click.echo(report.render(results, n))
        click.echo(f"results: {results.path}", err=True)


def command() -> str:
    """The command as it was typed, without the path of the program."""
    return shlex.join(["llm-edit", *sys.argv[1:]])
