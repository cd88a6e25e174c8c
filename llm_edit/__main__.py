"""The command `llm-edit`.

Exit codes: 0 done; 1 the work failed; 2 usage or configuration; 3 a resource is missing;
130 interrupted. Subcommands are imported when they are used: help needs neither torch nor
textual.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from . import logfile

log = logging.getLogger(__name__)

COMMANDS = {
    "chat": "chat:chat",
    "ask": "ask:ask",
    "edit": "edit:edit",
    "undo": "undo:undo",
    "redo": "undo:redo",
    "resolve": "resolve:resolve",
    "sessions": "sessions:sessions",
    "export": "export:export",
    "replay": "replay:replay",
    "trace": "trace:trace",
    "tune": "tune:tune",
    "bench": "bench:bench",
    "models": "models:models",
    "methods": "methods:methods",
    "doctor": "doctor:doctor",
    "config": "config:config",
    "completion": "completion:completion",
}
INTERRUPTED = 130
THREAD = "engine"  # name of the thread that owns the model


class ReaderGone(Exception):
    """Whoever read our output has seen enough."""


class Lazy(click.Group):
    """A group whose commands are found by name, `module:object`, in this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        found: click.Command = getattr(importlib.import_module(f".{module}", __package__), name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would leave with exit code 1
            raise ReaderGone from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from engine.errors import UnknownName

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(str(UnknownName("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)


def _version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"llm-edit {version('llm-edit-chat')}")
    except PackageNotFoundError:  # run from a checkout that was never installed
        click.echo("llm-edit, not installed")
    context.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version and leave.")  # fmt: skip
def cli() -> None:
    """Chat with a local language model, correct what it gets wrong, undo it exactly."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit code. Errors are said in one line."""
    with logfile.logging_to_file():
        try:
            return _run(arguments)
        except (KeyboardInterrupt, click.exceptions.Abort):
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except (BrokenPipeError, ReaderGone):
            # What is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except click.ClickException as error:
            return _misused(error)
        except Exception as error:
            return _failed(error)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(args=arguments, prog_name="llm-edit", standalone_mode=False)
    except SystemExit as error:
        code = error.code
    except click.exceptions.Exit as error:
        code = error.exit_code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _misused(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # asked nothing: say what there is
        click.echo(error.format_message(), err=True)
        return 2
    context = getattr(error, "ctx", None)
    hint = f" See {context.command_path} --help." if context is not None else ""
    click.echo(f"error: {error.format_message()}{hint}", err=True)
    return 2


def _failed(error: Exception) -> int:
    """One line, and the traceback in the log; with LLM_EDIT_DEBUG on the terminal too."""
    from engine.worker import UnexpectedError, describe

    problem = describe(error)
    expected = hasattr(error, "exit_code") and not isinstance(error, UnexpectedError)
    remedy = problem.remedy
    if not expected:
        log.error("unexpected error", exc_info=error)
        logged = problem.exit_code == 1 and logfile.path().exists()
        remedy = f"The traceback is in {logfile.path()}." if logged else remedy
    click.echo(f"error: {problem.message} {remedy}".strip(), err=True)
    if os.environ.get("LLM_EDIT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return problem.exit_code


def main(*arguments: Any) -> None:
    """Entry point of the script and of `python -m llm_edit`."""
    code = run(arguments or None)
    if any(thread.name == THREAD for thread in threading.enumerate()):
        # The interpreter must not be taken down around a thread that is inside torch.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
