"""`llm-edit config`: the settings in force, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import click

from engine import paths
from tui import settings
from tui.console import table

from .common import options, print_json


@click.group()
def config() -> None:
    """Show and check the configuration."""


@config.command()
@options()
def show(as_json: bool) -> None:
    """Every setting, its value, and where it was set."""
    found, origin = settings.load()
    values = dataclasses.asdict(found)
    places = {
        "config": str(settings.file()),
        "home": str(paths.home()),
        "cache": str(paths.cache()),
    }
    if as_json:
        print_json({"settings": values, "sources": origin, "paths": places})
        return
    for line in table(
        ("key", "value", "from"), [(k, str(v), origin[k]) for k, v in values.items()]
    ):
        click.echo(line)
    click.echo()
    for name, place in places.items():
        click.echo(f"{name}: {place}")


@config.command()
@options()
def keys(as_json: bool) -> None:
    """The keys of the full screen, by the ids that [keys] of config.toml takes."""
    from tui.keys import BY_ID, PLACES, keys_of, shown

    found, _ = settings.load()
    rows = [(key.id, keys_of(key, found.keys), key.place, key.help) for key in BY_ID.values()]
    if as_json:
        names = ("id", "keys", "place", "help")
        print_json({"keys": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    said = [
        (name, shown(where), PLACES[place].split(" (")[0], text)
        for name, where, place, text in rows
    ]
    for line in table(("id", "keys", "where", "what it does"), said):
        click.echo(line)


@config.command()
@options("no-json")
def path() -> None:
    """The path of the configuration file, whether or not it is there."""
    click.echo(str(settings.file()))


@config.command()
@options()
def validate(as_json: bool) -> None:
    """Check config.toml, models.toml and the hyper-parameter files."""
    checked = [str(p) for p in _checked()]
    if as_json:
        print_json({"valid": True, "files": checked})
        return
    for name in checked:
        click.echo(f"ok: {name}")
    if not checked:
        click.echo("nothing is configured: every setting is the default.")


def _checked() -> list[Path]:
    """The files of the home folder that are there and right. Raises BadFile, BadSetting."""
    from engine import catalog

    found = []
    if settings.file().is_file():
        _names()
        found.append(settings.file())
    if catalog.user_file().is_file():
        catalog.aliases()
        found.append(catalog.user_file())
    return found + [_hparams(path) for path in sorted(paths.home().glob("hparams/*/*.yaml"))]


def _names() -> None:
    """What config.toml names is there: method, model, dtype and device. Raises BadSetting."""
    from engine import catalog, methods, placing
    from engine.errors import BadSetting, ModelUnavailable, UnknownName

    found, _ = settings.load()
    named: dict[str, Callable[[str], object]] = {
        "method": methods.get,
        "model": catalog.resolve_model,
        "dtype": placing.check_dtype,
        "device": placing.check_device,
    }
    for key, check in named.items():
        try:
            check(getattr(found, key))
        except (UnknownName, ModelUnavailable, BadSetting) as error:
            raise BadSetting(f"{settings.file()}: {error.message}", error.remedy) from error


def _hparams(path: Path) -> Path:
    """A user's file of hyper-parameters, held against its method."""
    from engine import methods
    from engine.config import Source, build, defaults
    from engine.config import settings as keys

    info = methods.get(path.parent.name)
    sources = [Source(str(file), keys(file)) for file in (*defaults(info.name), path)]
    build(info.params_class(), sources)
    return path
