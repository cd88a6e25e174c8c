"""`llm-edit replay`: a session as it was recorded, without a model; with --execute, with one."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tui.drift import TOLERANCE

from . import completing
from .common import options, print_json, stored

if TYPE_CHECKING:
    from sessions.recording import Recording
    from tui.player import Player


@click.command()
@click.argument("session", metavar="SESSION|FILE", shell_complete=completing.sessions_or_files)
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Seconds of the replay in one second; 1 is as recorded.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Lines instead of the full screen.")
@click.option("--theme", default="", shell_complete=completing.themes, help="As for chat.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
@click.option("--ascii", is_flag=True, help="Plots and frames in ASCII characters.")
@click.option("--execute", is_flag=True, help="Do it all again on the model; say what differs.")
@click.option("--model", shell_complete=completing.models,
              help="With --execute: in place of the recorded one.")  # fmt: skip
@click.option("--dtype", shell_complete=completing.words("auto", "fp32", "bf16", "fp16"),
              help="With --execute: fp32, bf16, fp16 or auto; else as recorded.")  # fmt: skip
@click.option("--device", shell_complete=completing.words("auto", "cpu", "cuda", "mps"),
              help="With --execute: cpu, cuda, cuda:1, mps or auto.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(min=0), default=TOLERANCE, show_default=True,
              help="With --execute: of numbers, |a - b| / max(1, |a|, |b|).")  # fmt: skip
@click.option("--verbose", is_flag=True, help="With --execute: say on stderr what happens.")
@options()
@click.pass_context
def replay(
    context: click.Context,
    session: str,
    speed: float | None,
    plain: bool,
    theme: str,
    no_mouse: bool,
    ascii: bool,
    execute: bool,
    model: str | None,
    dtype: str | None,
    device: str | None,
    tolerance: float,
    verbose: bool,
    as_json: bool,
) -> int:
    """Play a session as it was recorded; no model is loaded.

    SESSION is a title, an id or part of an id; FILE a bundle (.llmedit), which is read without
    importing it. On a terminal it is the full screen, read-only; in a pipe, or with --plain,
    lines, without waiting unless --speed is given. Waiting between jobs is shortened to two
    seconds, and said.

    --execute loads the model, computes every edit anew with what was recorded of it, asks every
    question again, and compares all numbers and words. Nothing is written. The exit code is 1
    where something differs by more than the tolerance.
    """
    _fitting(context, execute)
    from tui.player import Player
    from tui.tape import tape

    found = tape(recording(session))
    if execute:
        from .execute import execute as do_again

        return do_again(
            found, source_of(session), model=model, dtype=dtype, device=device,
            tolerance=tolerance, verbose=verbose, as_json=as_json,
        )  # fmt: skip
    player = Player(found)
    if as_json:
        from tui.retell import as_object

        print_json(as_object(player, source_of(session)))
        return 0
    if plain or not _full_screen():
        return _retell(player, speed)
    from tui.replaying import run

    player.set_speed(speed or 1.0)
    return run(player, theme=theme, mouse=not no_mouse, ascii=ascii)


def _fitting(context: click.Context, execute: bool) -> None:
    """Refuse options that mean nothing here."""
    own = ("model", "dtype", "device", "tolerance", "verbose")
    other = ("speed", "theme", "no_mouse", "ascii")
    for name in other if execute else own:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            what = "excludes" if execute else "needs"
            named = f"--{name.replace('_', '-')}"
            pair = ("--execute", named) if execute else (named, "--execute")
            raise click.UsageError(f"{pair[0]} {what} {pair[1]}.", context)


def recording(ref: str) -> Recording:
    """Of a bundle, where the name is that of a file; else of a session in the home folder.

    Raises SessionError.
    """
    from sessions import bundle

    if source_of(ref) == "file":
        return bundle.read(Path(ref))
    with stored() as store:
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
