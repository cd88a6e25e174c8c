"""Pictures that a command writes: where they may go, and what it says when they cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import click

ENDINGS = (".svg", ".png")


def checked(
    context: click.Context,
    option: click.Parameter,
    paths: tuple[Path, ...],
    endings: tuple[str, ...] = ENDINGS,
) -> tuple[Path, ...]:
    """The callback of an option: paths in folders that are there, with one of the endings."""
    for path in paths:
        if path.suffix.lower() not in endings:
            known = f"{', '.join(endings[:-1])} or {endings[-1]}"
            raise click.BadParameter(f"{path} must end in {known}.", context, option)
        if not path.absolute().parent.is_dir():
            raise click.BadParameter(f"{path.parent} is no folder.", context, option)
    return paths


def require_matplotlib(remedy: str) -> None:
    """Before minutes of work, not behind them. Raises MissingResource."""
    from engine.errors import MissingResource

    if importlib.util.find_spec("matplotlib") is None:
        raise MissingResource("Drawing this needs matplotlib, which is not installed.", remedy)


def write(paths: tuple[Path, ...], save: Callable[[Path], None]) -> None:
    """Save each. Raises NoSpace, click.UsageError."""
    from engine.errors import NoSpace
    from engine.storage import disk_full

    for path in paths:
        try:
            save(path)
        except OSError as error:
            if disk_full(error):
                raise NoSpace(f"{path} cannot be written: the disk is full.") from error
            raise click.UsageError(f"{path} cannot be written ({error.strerror}).") from error
        click.echo(f"saved {path}", err=True)
