"""`--load-in` and `--device-map` on the command line: recorded, resumed, refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine import quantised

from .conftest import Run
from .small import QUESTION

pytestmark = pytest.mark.usefixtures("own_folders")


def edit(run: Run, model: Path, small: tuple[object, ...], *more: object):  # type: ignore[no-untyped-def]
    return run(
        "edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--json", *small,
        "--hp", "relative_lr=10", "--hp", "clamp=60", "--model", model, *more,
    )  # fmt: skip


@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
def test_a_session_keeps_how_its_model_is_held(
    run: Run, model: Path, small: tuple[object, ...], load_in: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")

    def ask(*more: object):  # type: ignore[no-untyped-def]
        ran = run("ask", QUESTION, "--model", model, "--json", "--dtype", "fp32", *more)
        assert ran.code == 0, ran.err
        return ran.json

    dense = ask()
    fresh = ask("--load-in", load_in)
    assert fresh["session"] != dense["session"]  # another model, another session
    row = edit(run, model, small).json  # the latest session's
    assert row["session"] == fresh["session"]
    assert row["after"]["answer"] != row["before"]["answer"]
    assert fresh["answer"].startswith(row["before"]["answer"])  # an edit asks for fewer tokens
    assert 0 < row["layers"][0]["norm_ratio"] < 100
    resumed = ask("--session", fresh["session"])
    assert resumed["answer"].startswith(row["after"]["answer"])
    assert resumed["edits"] == [row["edit_id"]]
    assert run("undo").code == 0
    assert ask("--session", fresh["session"])["answer"] == fresh["answer"]
    assert run("redo").code == 0

    refused = run("ask", QUESTION, "--session", fresh["session"], "--load-in", "none")
    assert refused.code == 2
    assert f"was made with --load-in {load_in}" in refused.err
    refused = edit(run, model, small, "--session", fresh["session"], "--method", "ft-m")
    assert refused.code == 2
    again = ask("--load-in", "none")
    assert again["session"] not in (fresh["session"],)
    assert again["answer"] == dense["answer"]

    out = tmp_path / "merged"
    refused = run("export", fresh["session"], "--format", "hf", "--out", out)
    assert refused.code == 2
    assert f"is quantised ({load_in})" in refused.err
    assert not out.exists()
    out = tmp_path / "adapter"
    assert run("export", fresh["session"], "--format", "lora", "--out", out).code == 0
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"


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
