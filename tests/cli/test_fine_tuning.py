"""Fine-tuning methods from the command line: a whole matrix is kept, asked with, and undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run
from .small import QUESTION

OTHER = "Who wrote Emma?"

pytestmark = pytest.mark.usefixtures("own_folders")


def answer(run: Run, model: Path, question: str) -> str:
    ran = run("ask", question, "--model", model, "--json", "--dtype", "fp32")
    assert ran.code == 0, ran.err
    text: str = ran.json["answer"]
    return text


def edited(run: Run, model: Path, question: str, target: str, method: str) -> None:
    own = {"ft-m": ("steps=80", "lr=0.05"), "locft-bf": ("steps=80", "lr=0.05", "batch=4")}
    given = [part for pair in own[method] for part in ("--hp", pair)]
    ran = run(
        "edit", question, "--target", target, "--model", model, "--method", method,
        "--hp", "layers=0,1" if method == "ft-m" else "layers=1", "--no-probes", "--json",
        "--dtype", "fp32", *given,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    row = ran.json
    assert row["success"]
    assert row["layers"][0]["rank"] == 16  # the width of the tiny model
    assert row["losses"][-1] < row["losses"][0]


def test_ft_m_makes_a_model_say_it_and_undo_unsays_it(run: Run, model: Path) -> None:
    before = answer(run, model, QUESTION)
    edited(run, model, QUESTION, "Paris", "ft-m")
    assert answer(run, model, QUESTION) == "Paris"
    assert run("undo", "--model", model).code == 0
    assert answer(run, model, QUESTION) == before


def test_locft_bf_keeps_what_it_was_taught_before(run: Run, model: Path) -> None:
    before = answer(run, model, OTHER)
    edited(run, model, QUESTION, "Paris", "locft-bf")
    edited(run, model, OTHER, "Sydney", "locft-bf")
    assert answer(run, model, QUESTION) == "Paris"
    assert answer(run, model, OTHER) == "Sydney"
    assert run("undo", "--model", model).code == 0
    assert answer(run, model, QUESTION) == "Paris"
    assert answer(run, model, OTHER) != "Sydney"
    assert run("undo", "--model", model).code == 0
    assert answer(run, model, OTHER) == before
