"""From the command line to the full screen, and out of the process again."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import settings
from .background import is_light
from .guard import descriptor_guard

if TYPE_CHECKING:
    from engine.worker import Job

    from .assistant import Assistant
    from .options import Options

PATIENCE = 0.4  # seconds for the engine's thread to stop when the application is left
SWITCH = 0.0005  # seconds a thread may hold the interpreter: keeps keys quick beside the engine


def theme_of(name: str) -> str:
    """The full name of a theme; "auto" is asked of the terminal."""
    if name != "auto":
        return name
    return settings.THEMES["light" if is_light() else "dark"]


def _settled() -> None:
    """Everything that is here now stays: it need not be looked through again and again."""
    gc.freeze()
    gc.enable()


def _assistant(options: Options, signal: Callable[[Job[Any]], None]) -> Assistant:
    from .assistant import Assistant

    return Assistant(options, signal)


def log_folder(home: Path) -> Path:
    """Where stray output goes: a home that cannot be written ends no chat."""
    folder = home / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="llm-edit-"))


def run(options: Options, *, theme: str = "", mouse: bool = True, ascii: bool = False) -> NoReturn:
    """The application on a terminal; ends the process with its exit code.

    theme  "" for the configured one; `mouse` False and `ascii` True override the configuration

    It does not return: an interpreter with torch in it takes most of a second to be taken down,
    and crashes when the engine's thread is still computing. What is recorded is safe, since the
    store commits as it goes. Raises BadSetting, BadFile before the screen is taken.
    """
    gc.disable()  # until the first picture is there: nothing of what is imported will go
    from .app import EditApp

    chosen, _ = settings.load()
    look = settings.known_theme(theme or chosen.theme, "--theme")
    sys.setswitchinterval(SWITCH)
    folder = log_folder(options.home)
    look = theme_of(look)
    with descriptor_guard(folder / "terminal.log") as stray:
        logs = (stray, folder / "llm-edit.log")
        app = EditApp(
            partial(_assistant, options),
            theme=look,
            enter_sends=chosen.enter == "send",
            ascii=ascii or chosen.ascii,
            keys=chosen.keys,
            logs=logs,
            painted=_settled,
        )
        app.run(mouse=mouse and chosen.mouse)
        app.assistant.close(timeout=PATIENCE)
    if app.farewell or app.return_code:
        sys.stderr.write(f"{app.farewell or f'llm-edit: unexpected error; see {stray}'}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(app.return_code or 0)
