"""A tiny model with a chat template, a text to measure keys on, and a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.lm import LM
from llm_edit.__main__ import run
from tests.engine.support import CORPUS, Bench, finish
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


@pytest.fixture
def bench(model_folder: Path, tmp_path: Path, overrides: dict[str, str]) -> Bench:
    """`llm-edit bench WORDS` on the tiny model, with its settings and a folder for results."""
    pairs = [word for k, v in overrides.items() for word in ("--hp", f"{k}={v}")]

    def call(*words: object) -> int:
        out = ["--out", str(tmp_path / "out")]
        fixed = ["--model", str(model_folder), "--dtype", "fp32", *out, *pairs]
        return run(["bench", *map(str, words), *fixed])

    return call
