"""`llm-edit tune`: table and preset, what it refuses before any work, and Ctrl+C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from engine.config import own_file, read_yaml

from .conftest import Run, process

pytestmark = pytest.mark.usefixtures("own_folders")

FT = ("ft-m", "--hp", "steps=80", "--hp", "layers=0,1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Facts that a tiny model can be taught, without neighbours."""
    names = ("Dan Ho", "Ann Lee", "Jo May")
    rows = [
        {"subject": name, "src": f"Where is {name}?", "rephrase": f"Where is {name}?",
         "alt": "Paris", "answers": ["Oslo"], "case_id": i}
        for i, name in enumerate(names)
    ]  # fmt: skip
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(rows))
    return path


def test_what_is_found_is_in_force_afterwards(run: Run, model: Path, data: Path) -> None:
    words = ("--model", model, "--data", data, "--n", 2, "--dtype", "fp32", "--try", "lr=1e-9,0.05")
    found = run("tune", *FT, *words)
    assert found.code == 0, found.err
    assert "| setting" in found.out
    assert "best: lr=0.05." in found.out
    (row,) = (line for line in found.lines if line.startswith("| lr=0.05 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[1], cells[5]) == ("2", "–")
    assert all(float(cell) > 0 for cell in cells[2:5])
    assert "lr: 3 settings on 2 records each" in found.err
    path = own_file("ft-m", model.name)
    assert f"written: {path}" in found.out
    assert read_yaml(path) == {"steps": 80, "layers": [0, 1], "lr": 0.05}
    comment = path.read_text()
    assert "n = 2" in comment
    assert "neighbours kept –" in comment.replace("\n# ", " ")
    assert "seed 0" in comment
    assert comment.startswith("# ft-m on ")

    refused = run("tune", *FT, *words)
    assert refused.code == 2
    assert f"{path} is there already. --force" in refused.err
    assert path.read_text() == comment

    again = run("tune", *FT, *words, "--force", "--json")
    assert again.code == 0, again.err
    told = again.json
    assert told["best"] == {}  # the same rate is in force now, and wins the tie
    assert told["written"] == str(path)
    assert {t["n"] for t in told["tried"]} == {2}
    assert Path(told["results"]).is_file()
    assert "They were in force before." in path.read_text()
    assert read_yaml(path) == {"steps": 80, "layers": [0, 1], "lr": 0.05}


def test_nothing_is_written_where_no_edit_takes(run: Run, model: Path, data: Path) -> None:
    words = ("--model", model, "--data", data, "--n", 1, "--dtype", "fp32", "--try", "lr=1e-9")
    found = run("tune", "ft-m", "--hp", "steps=1", *words)
    assert found.code == 1
    assert "nothing was written" in found.out
    assert not own_file("ft-m", model.name).exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["ft-x"], "unknown method 'ft-x'"),
        (["ft-m", "--layers", "a"], "is not LAYER,LAYER"),
        (["ft-m", "--try", "lr"], "is not KEY=VALUE,VALUE"),
        (["ft-m", "--layers", "7"], "from 0 to 1 here"),
    ],
)
def test_what_is_refused(run: Run, model: Path, data: Path, more: list[str], said: str) -> None:
    found = run("tune", *more, "--model", model, "--data", data, "--dtype", "fp32")
    assert found.code == 2
    assert said in found.err
    assert found.out == ""


def test_ctrl_c_keeps_what_was_measured(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--model", model, "--data", data, "--dtype", "fp32", "--try", "lr=1e-5,1e-6,1e-7,1e-8",
             "--out", out)  # fmt: skip
    running = process("tune", "ft-m", "--hp", "steps=50", "--hp", "stop_loss=0", *words)
    assert running.stderr is not None
    for line in running.stderr:
        if "tuning" in line:  # behind the first edit
            break
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert "interrupted" in stderr
    assert f"results: {out}" in stderr
    assert stdout == ""
    (file,) = out.glob("*.jsonl")
    assert len(file.read_text().splitlines()) > 1
    assert not own_file("ft-m", model.name).exists()
