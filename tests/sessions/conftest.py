from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions import BadBundle, EditRow, Node, PatchRecord, Session, Store, bundle
from tests.sessions.bundles import Members, Refused, contents, of

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
def good(scribe: Scribe, tmp_path: Path) -> Members:
    """The members of a small bundle."""
    session = scribe.session("s").id
    question = scribe.store.add_message(session, "user", "capital?")
    edit = scribe.edit(session, "edit-one", question.id)
    scribe.store.add_mark(session, "undo", "edit-one", ledger_hash="")
    event = {"kind": "Note", "seq": 0, "t": 0.0}
    scribe.store.add_events(session, edit.node, "1", [event])
    bundle.write(scribe.store.recording(session), tmp_path / "good.llmedit")
    with zipfile.ZipFile(tmp_path / "good.llmedit") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts what may be no bundle."""
    return tmp_path / "bad.llmedit"


@pytest.fixture
def refused(store: Store, file: Path) -> Refused:
    """`refused(part, ...)`: the file is refused with these words by reading or importing."""

    def check(*parts: str, kind: type[BadBundle] = BadBundle) -> BadBundle:
        before = contents(store.home)
        outside = sorted(p for p in file.parent.rglob("*") if store.home not in p.parents)
        with pytest.raises(BadBundle) as caught:
            store.add_recording(bundle.read(file), copy=True, of=of)
        error = caught.value
        assert type(error) is kind
        assert error.exit_code == 2
        assert error.message.startswith(f"{file} ")
        assert error.message.endswith(".")
        assert "\n" not in str(error)
        for part in parts:
            assert part in error.message
        assert contents(store.home) == before
        found = sorted(p for p in file.parent.rglob("*") if store.home not in p.parents)
        assert found == outside
        return error

    return check


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
