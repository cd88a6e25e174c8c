"""What a person set once: config.toml in the home folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import paths
from engine.config import Source, build
from engine.tomlfile import read_toml

FILE = "config.toml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Defaults of the command line, and how the full screen looks.

    enter  what the Enter key does in the full screen's composer
    """

    model: str = "smollm2-135m"
    method: str = "r-rome"
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    max_tokens: int = 256
    theme: str = "llm-edit-dark"
    enter: Literal["send", "newline"] = "send"


def file() -> Path:
    return paths.home() / FILE


def load() -> tuple[Settings, dict[str, str]]:
    """The settings in force, and per key where each came from.

    Raises BadFile, BadSetting naming the file and the key.
    """
    mine = file()
    sources = [Source(str(mine), read_toml(mine))] if mine.is_file() else []
    return build(Settings, sources)
