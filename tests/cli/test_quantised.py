"""`--load-in` and `--device-map` on the command line: what is taken, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import quantised

from .conftest import Run
from .small import QUESTION

pytestmark = pytest.mark.usefixtures("own_folders")


def test_a_method_that_needs_the_dense_matrix_says_so_at_once(run: Run, model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    ran = run("edit", QUESTION, "--target", "Paris", "--method", "ft-m", "--model", model,
              "--load-in", "4bit", "--dtype", "fp32")  # fmt: skip
    assert ran.code == 2
    assert "ft-m trains a dense matrix, and the weights of" in ran.err


@pytest.mark.parametrize(
    "command", [("ask",), ("edit", "--target", "Paris"), ("trace", "--subject", "Australia")]
)
def test_without_bitsandbytes_the_exit_code_is_3(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    name, *more = command
    ran = run(name, QUESTION, *more, "--model", model, "--load-in", "8bit")
    assert ran.code == 3
    assert "--load-in 8bit needs bitsandbytes, which is not installed." in ran.err
    assert "llm-edit-chat[quant]" in ran.err


def test_a_device_map_answers_alike_and_excludes_a_device(run: Run, model: Path) -> None:
    home = os.environ["LLM_EDIT_HOME"]
    plain = run("ask", QUESTION, "--model", model, "--json", "--dtype", "fp32", "--device", "cpu")
    mapped = run("ask", QUESTION, "--model", model, "--json", "--dtype", "fp32",
                 "--device-map", "auto", "--home", home + "2")  # fmt: skip
    assert mapped.code == 0, mapped.err
    assert mapped.json["answer"] == plain.json["answer"]
    ran = run("ask", QUESTION, "--model", model, "--device-map", "auto", "--device", "cpu")
    assert ran.code == 2
    assert "exclude each other" in ran.err
