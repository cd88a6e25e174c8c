"""Keeps stray output off the screen.

Textual draws on the terminal through descriptor 2. Python's own `print` is caught by Textual, but
libraries also write to descriptors 1 and 2 from C, or to `sys.__stderr__`, straight over the
picture. While the guard is on, both descriptors lead to a log file and only Textual holds the
terminal; what was written is shown in the log pane.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def descriptor_guard(log: Path) -> Iterator[Path]:
    """Descriptors 1 and 2 append to `log` inside the block; the terminal is given back after it.

    Both `sys.__stdout__` and `sys.__stderr__` become a copy of the terminal: Textual draws on one
    and asks the other for the window's size. Raises OSError when the log cannot be opened.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    streams = sys.__stdout__, sys.__stderr__
    _flush()
    saved = os.dup(1), os.dup(2)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.__stdout__ = sys.__stderr__ = terminal  # type: ignore[misc]
        yield log
    finally:
        _flush()
        sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(sink)
        terminal.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()  # type: ignore[union-attr]


class LogTail:
    """The lines that were added to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def lines(self) -> list[str]:
        """New complete lines; a progress bar's carriage returns leave its last state."""
        try:
            if self.path.stat().st_size < self._offset:  # begun anew
                self._offset, self._rest = 0, b""
            with self.path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError:
            return []
        self._offset += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        texts = (line.rstrip(b"\r").split(b"\r")[-1].decode("utf-8", "replace") for line in whole)
        return [text for text in texts if text.strip()]
