"""`llm-edit replay`: a session as it was recorded, without a model."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import completing
from .common import options, print_json

if TYPE_CHECKING:
    from sessions.recording import Recording
    from tui.player import Player


@click.command()
@click.argument("session", metavar="SESSION|FILE", shell_complete=completing.sessions_or_files)
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Seconds of the replay in one second; 1 is as recorded.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Lines instead of the full screen.")
@click.option("--theme", default="", shell_complete=completing.themes, help="As for llm-edit chat.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
@click.option("--ascii", is_flag=True, help="Plots and frames in ASCII characters.")
@options()
def replay(
    session: str,
    speed: float | None,
    plain: bool,
    theme: str,
    no_mouse: bool,
    ascii: bool,
    as_json: bool,
) -> int:
    """Play a session as it was recorded; no model is loaded.

    SESSION is a title, an id or part of an id; FILE a bundle (.llmedit), which is read without
    importing it. On a terminal it is the full screen, read-only; in a pipe, or with --plain,
    lines, without waiting unless --speed is given. Waiting between jobs is shortened to two
    seconds, and said.
    """
    from tui.player import Player
    from tui.tape import tape

    player = Player(tape(recording(session)))
    if as_json:
        from tui.retell import as_object

        print_json(as_object(player, source_of(session)))
        return 0
    if plain or not _full_screen():
        return _retell(player, speed)
    from tui.replaying import run

    player.set_speed(speed or 1.0)
    return run(player, theme=theme, mouse=not no_mouse, ascii=ascii)


def recording(ref: str) -> Recording:
    """Of a bundle, where the name is that of a file; else of a session in the home folder.

    Raises SessionError.
    """
    from engine import paths
    from sessions import bundle
    from sessions.store import Store

    if source_of(ref) == "file":
        return bundle.read(Path(ref))
    with Store.open(paths.home()) as store:
        return store.recording(ref)


def source_of(ref: str) -> str:
    """ "file" or "session": a bundle's name is never taken for a title."""
    from sessions import bundle

    is_file = ref.endswith(bundle.SUFFIX) or (os.sep in ref) or Path(ref).is_file()
    return "file" if is_file else "session"


def _full_screen() -> bool:
    terminals = sys.stdin.isatty() and sys.stdout.isatty()
    return terminals and os.environ.get("TERM", "dumb") != "dumb"


def _retell(player: Player, speed: float | None) -> int:
    from tui.console import printable
    from tui.retell import head, lines

    for line in head(player.tape):
        click.echo(printable(line))
    began = time.monotonic()
    for moment, told in lines(player):
        if speed is not None:
            time.sleep(max(0.0, began + moment.at / speed - time.monotonic()))
        for line in told:
            click.echo(line)
    return 0
