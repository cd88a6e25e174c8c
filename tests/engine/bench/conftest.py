"""A tiny model with a chat template, a text to measure keys on, and a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.lm import LM
from tests.engine.support import CORPUS, finish
from tests.tiny import save_tiny


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_EDIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLM_EDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny", "gpt2", chat=True)


@pytest.fixture
def lm(model_folder: Path) -> LM:
    _, found = finish(LM.load(str(model_folder), dtype="float32", device="cpu"))
    return found


@pytest.fixture
def overrides(tmp_path: Path) -> dict[str, str]:
    """Hyper-parameters for two layers of width 16, without downloads."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CORPUS * 3), encoding="utf-8")
    return {
        "text": str(text), "tokens": "200", "layer": "0", "contexts": "2", "steps": "12",
        "clamp": "40", "relative_lr": "3", "decay": "0", "kl": "0",
    }  # fmt: skip
