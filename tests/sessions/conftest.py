from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions import EditRow, Node, PatchRecord, Session, Store

ROOT = Path(__file__).parents[2]


class Scribe:
    """Writes into a store what a test does not care to spell out."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def session(self, title: str = "", model: str = "tiny", method: str = "r-rome") -> Session:
        model_id = self.store.add_model(model, "somewhere", "f" * 64, "float32")
        return self.store.create_session(model_id, method=method, title=title)

    def begin(self, session: str, edit_id: str, parent: str | None = None, **request: Any) -> Node:
        asked = {"prompt": "What is the capital of Australia?", "target_new": "Melbourne"}
        return self.store.begin_edit(
            session,
            edit_id=edit_id,
            method="r-rome",
            hparams={"layer": 12, "lr": 0.5},
            request={**asked, **request},
            parent=parent,
            seed=7,
            device="cpu",
        )

    def finish(self, node: str, tensors: bytes = b"tensors", **other: Any) -> EditRow:
        values: dict[str, Any] = {
            "patches": [PatchRecord(kind="LowRank", site="mlp.12", rank=1, norm_ratio=0.01)],
            "tensors": tensors,
            "edit": {"id": "x", "requests": []},
            "before": {"answer": "Canberra", "p_new": 0.1, "p_old": 0.8},
            "after": {"answer": "Melbourne", "p_new": 0.9, "p_old": float("nan")},
            "success": True,
            "verdict": "changed and kept",
            "metrics": {"said": {"before": 0.0, "after": 1.0, "n": 1, "detail": {"target": "M"}}},
            "seconds": {"total": 1.5},
            "peak_memory": 1024,
            "versions": {"torch": "2"},
            "ledger_hash": "hash",
        }
        return self.store.finish_edit(node, **{**values, **other})

    def edit(self, session: str, edit_id: str, parent: str | None = None, **other: Any) -> EditRow:
        return self.finish(self.begin(session, edit_id, parent).id, **other)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def scribe(store: Store) -> Scribe:
    return Scribe(store)


@pytest.fixture
def make_scribe() -> Callable[[Store], Scribe]:
    return Scribe


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process in the checkout; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
