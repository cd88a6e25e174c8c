"""`llm-edit trace`: a heat map, pictures, JSON, and what it refuses before any work."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, process

PROMPT, SUBJECT = "The Space Needle is in", "Space Needle"


def test_a_fact_is_traced_and_drawn(run: Run, model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "trace.svg"
    small = ("--model", model, "--dtype", "fp32", "--samples", 2)
    found = run("trace", PROMPT, "--subject", SUBJECT, *small, "--save", picture, "--kind", "mlp")
    assert found.code == 0, found.err
    asked, told = found.lines[0].split(" → ")
    assert asked == PROMPT
    assert re.fullmatch(r".+: p 0\.\d{3}, 0\.\d{3} with the subject noised", told)
    assert "MLP outputs of 1 layers restored" in found.out
    assert "hidden state" not in found.out
    assert "* tokens of the subject" in found.out
    assert picture.read_text().startswith("<svg")
    assert f"saved {picture}" in found.err


def test_json(run: Run, model: Path, tmp_path: Path) -> None:
    file, picture = tmp_path / "trace.JSON", tmp_path / "trace.svg"
    small = ("--model", model, "--dtype", "fp32", "--samples", 2, "--json")
    found = run("trace", PROMPT, "--subject", SUBJECT, *small, "--save", file, "--save", picture)
    assert found.code == 0, found.err
    assert json.loads(file.read_text(encoding="utf-8")) == found.json
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    told: dict[str, Any] = found.json
    assert set(told["effects"]) == {"state", "mlp"}
    assert len(told["effects"]["mlp"]) == len(told["tokens"]) == len(told["positions"])
    assert told["effects"]["state"][-1][-1] == pytest.approx(
        told["clean"] - told["corrupted"], abs=1e-5
    )
    first, behind = told["subject"]
    assert "Needle" in "".join(told["tokens"][first:behind])
    assert told["samples"] == 2


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--subject", "Eiffel"], 2, "the subject 'Eiffel' is not in the prompt"),
        ([], 2, "Missing option '--subject'"),
        (["--subject", SUBJECT, "--save", "a.gif"], 2, "must end in .svg, .png or .json."),
        (["--subject", SUBJECT, "--save", "no/where/a.json"], 2, "is no folder"),
        (["--subject", SUBJECT, "--kind", "mpl"], 2, "'mpl' is not one of"),
    ],
)
def test_what_is_refused(run: Run, model: Path, more: list[str], code: int, said: str) -> None:
    found = run("trace", PROMPT, *more, "--model", model)
    assert found.code == code
    assert said in found.err
    assert found.out == ""


def test_png_without_its_library(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else real(n, *a)
    )
    found = run("trace", PROMPT, "--subject", SUBJECT, "--save", "a.png", "--model", model)
    assert found.code == 3
    assert "pip install 'llm-edit-chat[bench]', or save as .svg" in found.err


def test_encoder_decoders_are_refused(run: Run, tiny_folder: Any) -> None:
    found = run("trace", PROMPT, "--subject", SUBJECT, "--model", tiny_folder("t5"))
    assert found.code == 2
    assert "trace follows decoder-only models, not 't5'" in found.err


def test_ctrl_c_ends_it(model: Path) -> None:
    words = ("trace", PROMPT, "--subject", SUBJECT, "--model", model, "--samples", 4000)
    running = process(*words)
    assert running.stderr is not None
    for line in running.stderr:
        if "tracing" in line:
            break
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "interrupted" in err
    assert out == ""
