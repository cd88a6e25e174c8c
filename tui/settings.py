"""What a person set once: config.toml in the home folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine import paths
from engine.config import Source, build
from engine.errors import BadSetting
from engine.tomlfile import read_toml

from . import keys

FILE = "config.toml"
THEMES = {
    "auto": "dark or light, as the terminal's background is",
    "dark": "llm-edit-dark",
    "light": "llm-edit-light",
    "contrast": "llm-edit-contrast",
    "ansi": "llm-edit-ansi",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Defaults of the command line, and how the full screen looks.

    theme  see THEMES; also the name of any theme of Textual's
    enter  what the Enter key does in the full screen's composer and at the plain prompt
    mouse  whether the full screen takes the mouse (else the terminal keeps it)
    ascii  draw plots and frames with ASCII characters alone
    keys   keys of the full screen, by action: see tui/keys.py
    """

    model: str = "smollm2-135m"
    method: str = "r-rome"
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    max_tokens: int = 256
    theme: str = "auto"
    enter: Literal["send", "newline"] = "send"
    mouse: bool = True
    ascii: bool = False
    keys: dict[str, str] = field(default_factory=dict)


def file() -> Path:
    return paths.home() / FILE


def load() -> tuple[Settings, dict[str, str]]:
    """The settings in force, and per key where each came from.

    Raises BadFile, BadSetting naming the file and the key.
    """
    mine = file()
    if not mine.is_file():
        return build(Settings, [])
    values = read_toml(mine)
    chosen = values.pop("keys", {})
    if not isinstance(chosen, dict):
        raise BadSetting(f"{mine}: [keys] must be a table of actions, not {chosen!r}.")
    found, origin = build(Settings, [Source(str(mine), values)])
    origin["keys"] = str(mine) if chosen else origin["keys"]
    known_theme(found.theme, str(mine))
    return dataclasses.replace(found, keys=keys.checked(chosen, str(mine))), origin


def known_theme(name: str, source: str) -> str:
    """The full name of a theme; "auto" stays. Raises BadSetting for one that does not exist."""
    if name == "auto" or name in THEMES.values():
        return name
    if name in THEMES:
        return THEMES[name]
    from textual.theme import BUILTIN_THEMES  # only for a name that is not ours: it is slow

    if name not in BUILTIN_THEMES:
        known = ", ".join([*THEMES, *sorted(BUILTIN_THEMES)])
        raise BadSetting(f"{source}: there is no theme {name!r}.", f"Known: {known}.")
    return name
