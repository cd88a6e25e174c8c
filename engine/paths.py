"""Where llm-edit keeps its things."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Sessions and configuration. `LLM_EDIT_HOME` overrides the user data directory."""
    chosen = os.environ.get("LLM_EDIT_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("llm-edit"))


def cache() -> Path:
    """Models, statistics, trained editors. `LLM_EDIT_CACHE` overrides the user cache directory."""
    chosen = os.environ.get("LLM_EDIT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("llm-edit"))


def packaged(name: str) -> Path:
    """A file of hparams/: inside the wheel as engine/_hparams, beside engine/ in a checkout."""
    from importlib import resources

    inside = Path(str(resources.files("engine"))) / "_hparams"
    root = inside if inside.is_dir() else inside.parent.parent / "hparams"
    return root / name
