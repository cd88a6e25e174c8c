"""The commands of the README on the default model, fetched on first use."""

from __future__ import annotations

import pytest

from .conftest import Run

pytestmark = pytest.mark.e2e

QUESTION = "What is the capital of Australia?"


def test_ask_correct_ask_undo_ask(run: Run) -> None:
    lines = f"{QUESTION}\n/fix Melbourne\n{QUESTION}\n/undo\n{QUESTION}\n"
    ran = run("chat", "--plain", stdin=lines)
    first, verdict, fixed, again, undone, last = ran.lines
    assert "Canberra" in first
    assert verdict.startswith("Edit #1: Changed")
    assert fixed == again == "Melbourne"
    assert undone == "Undone: edit #1 (Australia → Melbourne). No edits remain."
    assert last == first
    assert ran.code == 0


def test_a_statement_edited_by_rome_with_its_log(run: Run) -> None:
    ran = run(
        "edit", "The name of the president of the United States is", "--subject",
        "the United States", "--target", "Joe Biden", "--method", "rome", "--verbose",
    )  # fmt: skip
    assert ran.code == 0, ran.out
    assert any(line.startswith("after: Joe Biden") for line in ran.lines)
    assert "subject: 'the United States', last token ' States' at position" in ran.err
    for part in ("context 10: ", "step  1/", "nll", "kl", "decay", "denominator", "‖Δ‖/‖W‖"):
        assert part in ran.err


def test_the_shape_that_is_said_of_the_embedded_model_is_its_shape(run: Run) -> None:
    said = run("models", "info", "smollm2-135m", "--json").json
    folder = run("models", "fetch", "smollm2-135m", "--json").json["folder"]
    found = run("models", "info", folder, "--json").json
    for key in ("model_type", "layers", "width", "vocabulary", "parameters"):
        assert said[key] == found[key], key
