"""The same random numbers for every test of the engine; a text and settings for tiny models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.engine.support import CORPUS


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's generator, whatever ran before; TEST_SEED tries other numbers."""
    torch.manual_seed(int(os.environ.get("TEST_SEED", "0")))


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A file of the passages that keys are measured on."""
    file = tmp_path / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(file)


@pytest.fixture
def hp(text: str) -> dict[str, str]:
    """A correction's hyper-parameters as texts, as they come from a command line."""
    return {
        "layer": "0", "contexts": "2", "steps": "16", "relative_lr": "1", "clamp": "50",
        "decay": "1e-4", "kl": "0.01", "text": text, "tokens": "10000",
        "stop_probability": "1", "both": "false", "anchors": "0", "turns": "1",
    }  # fmt: skip


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a correction, before, after and to its probes."""
    monkeypatch.setattr("engine.correct.MAX_TOKENS", 12)
    monkeypatch.setattr("engine.evaluate.probes.TOKENS", 6)
