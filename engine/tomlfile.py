"""TOML files, with errors that name the file and the line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import BadFile, unreadable


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadFile naming file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, None, unreadable(error)) from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\s*\(at line (\d+), column \d+\)", str(error))
        reason = str(error)[: place.start()] if place else str(error)
        raise BadFile(path, int(place[1]) if place else None, f"is not TOML: {reason}.") from error


def line_of(path: Path, key: str) -> int | None:
    """The first line that mentions `key`: where a value that parses but is wrong stands."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if re.search(rf"(?<![\w.-]){re.escape(key)}(?![\w-])", line):
            return number
    return None
