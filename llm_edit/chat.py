"""`llm-edit chat`: full screen on a terminal, plain prompt, or lines from a pipe."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from . import completing
from .checking import check_hp
from .common import assistant_options, options


@click.command()
@options("model", "session", "no-json")
@click.option("--continue", "resume_last", is_flag=True, help="Go on with the latest session.")
@click.option("--plain", is_flag=True, help="A prompt instead of the full screen.")
@click.option("--context", is_flag=True, help="Lines from a pipe: keep the conversation.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, help="0 is greedy.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of an answer.")
@click.option(
    "--theme",
    default="",
    shell_complete=completing.themes,
    help="auto, dark, light, contrast, ansi, or one of Textual's.",
)
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
@click.option("--ascii", is_flag=True, help="Plots and frames in ASCII characters.")
def chat(
    resume_last: bool,
    plain: bool,
    context: bool,
    temperature: float,
    max_tokens: int | None,
    theme: str,
    no_mouse: bool,
    ascii: bool,
    **given: Any,
) -> int:
    """Chat with a model and correct its answers.

    Lines from a pipe are asked one by one, each as a fresh conversation; slash commands work
    there too. The exit code is then 1 if an edit failed.
    """
    if resume_last and given.get("session"):
        raise click.UsageError("--session and --continue exclude each other.")
    more: dict[str, Any] = {"resume_last": resume_last, "temperature": temperature}
    if max_tokens is not None:
        more["max_tokens"] = max_tokens
    wanted = assistant_options(given, **more)
    check_hp(wanted)
    if not sys.stdin.isatty():
        return _piped(wanted, context)
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return _prompt(wanted)
    from tui.launch import run

    _check(wanted)
    return run(wanted, theme=theme, mouse=not no_mouse, ascii=ascii)


def _check(wanted: Any) -> None:
    """What is wrong with model, method or session is said before the screen is taken over."""
    from engine.catalog import resolve_model

    if wanted.model:
        resolve_model(wanted.model)
    if not wanted.session:
        return  # the database is slow to import: the screen is there first
    from sessions.errors import StoreReadOnly
    from sessions.store import Store

    try:
        with Store.open(wanted.home) as store:
            store.session(wanted.session)
    except StoreReadOnly:
        return  # chat goes on, and says that it is not recorded


def _piped(wanted: Any, context: bool) -> int:
    from tui.assistant import Assistant
    from tui.plain import run_lines

    assistant = Assistant(wanted)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    try:
        return run_lines(assistant, sys.stdin, context=context)
    finally:
        assistant.close()


def _prompt(wanted: Any) -> int:
    from tui import settings
    from tui.assistant import Assistant
    from tui.plain import run_prompt

    configured, _ = settings.load()
    assistant = Assistant(wanted)
    try:
        return run_prompt(assistant, enter_sends=configured.enter == "send")
    finally:
        assistant.close(timeout=0.5)
