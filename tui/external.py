"""Writing in the person's own editor while the full screen steps aside."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BadSetting

if TYPE_CHECKING:
    from textual.app import App

USUAL = ("nano", "vim", "vi")


def editor() -> list[str]:
    """The command of $VISUAL or $EDITOR, else of an editor that is usually there.

    Raises BadSetting when there is none.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise BadSetting(f"$EDITOR is {named!r}: {error}.") from None
    words = words or [next((name for name in USUAL if shutil.which(name)), "")]
    if not shutil.which(words[0]):
        raise BadSetting(
            f"there is no editor {words[0]!r}." if words[0] else "no editor was found.",
            "Set EDITOR to a command, for example EDITOR=nano.",
        )
    return words


def edited_outside(app: App[Any], text: str) -> str:
    """The text as it was saved in the editor, without the newline at its end.

    Raises BadSetting: no editor, or it failed; the text is then as it was.
    """
    from textual.app import SuspendNotSupported

    command = editor()
    with tempfile.TemporaryDirectory(prefix="llm-edit-") as folder:
        path = Path(folder) / "message.txt"
        path.write_text(text, encoding="utf-8")
        try:
            with app.suspend():
                code = _run([*command, str(path)])
        except SuspendNotSupported:
            raise BadSetting("an editor cannot be opened from this terminal.") from None
        if code:
            raise BadSetting(f"{command[0]} ended with exit code {code}: nothing was taken over.")
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")


def _run(command: list[str]) -> int:
    """The exit code. Descriptors 1 and 2 lead to the log: the editor gets the terminal's own."""
    try:
        terminal = sys.__stderr__.fileno()  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return subprocess.call(command)
    return subprocess.call(command, stdout=terminal, stderr=terminal)
