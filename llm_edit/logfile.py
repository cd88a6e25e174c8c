"""The log file: made when there is something to say, kept short."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from engine import paths

BYTES = 1_000_000  # of one file; one older file is kept


def path() -> Path:
    return paths.home() / "logs" / "llm-edit.log"


class LogFile(RotatingFileHandler):
    """Follows `paths.home()`, which options may move; a log that cannot be written is left out."""

    def __init__(self) -> None:
        super().__init__(path(), maxBytes=BYTES, backupCount=1, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def _open(self) -> Any:
        self.baseFilename = str(path())
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full or read-only disk must not become a second error."""


@contextmanager
def logging_to_file() -> Iterator[None]:
    """Meanwhile warnings of every library, and ours from INFO on, go to the file."""
    root, handler = logging.getLogger(), LogFile()
    root.addHandler(handler)
    logging.captureWarnings(True)
    for name in ("engine", "tui", "sessions", "llm_edit"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()
