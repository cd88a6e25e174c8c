"""R-ROME on a T5 from the command line: made, applied, solved again, exported, undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from engine.export import asking

from .conftest import Run
from .small import LARGE

pytestmark = pytest.mark.usefixtures("own_folders")
SITE = "encoder.block.0.layer.1.DenseReluDense.wo"


@pytest.mark.parametrize("family", ["t5", "t5-gated"])
def test_an_edit_of_the_encoder(
    run: Run,
    tiny_folder: Any,
    small: tuple[object, ...],
    family: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "MAX_TOKENS", 12)
    model = tiny_folder(family)
    more = [part for key, value in LARGE.items() for part in ("--hp", f"{key}={value}")]

    def edit(subject: str, target: str, *options: object) -> Any:
        return run(
            "edit", f"Where is {subject}?", "--subject", subject, "--target", target, "--model",
            model, "--no-probes", *small, *more, *options,
        )  # fmt: skip

    def answer() -> tuple[str, list[str]]:
        ran = run("ask", "Where is Emma?", "--model", model, "--json", "--dtype", "fp32")
        assert ran.code == 0, ran.err
        return ran.json["answer"], ran.json["edits"]

    first, none = answer()
    assert none == []
    ran = edit("Emma", "Paris", "--method", "r-rome", "--verbose", "--json")
    assert ran.code in (0, 1), ran.err
    assert "r-rome is experimental on 't5' models" in ran.err
    assert SITE in ran.err
    row = ran.json
    assert (row["layers"][0]["site"], row["layers"][0]["rank"]) == (SITE, 1)
    changed, active = answer()
    assert active == [row["edit_id"]]
    assert changed != first

    assert edit("the Space Needle", "Seattle", "--method", "rome").code in (0, 1)
    shown = run("sessions", "show", run("sessions", "list", "--json").json["sessions"][0]["id"])
    assert "r-rome  Emma → Paris" in shown.out
    ran = run("resolve", "--model", model, *small[:6], "--json")  # of --hp the text and its size
    assert ran.code in (0, 1), ran.err
    assert run("undo").code == 0

    lora, merged = tmp_path / "lora", tmp_path / "merged"
    session = run("sessions", "list", "--json").json["sessions"][0]["id"]
    ran = run("export", session, "--format", "lora", "--out", lora)
    assert ran.code == 0, ran.err
    told = json.loads((lora / "adapter_config.json").read_text())
    assert (told["task_type"], told["target_modules"]) == ("SEQ_2_SEQ_LM", [SITE])
    assert set(load_file(lora / "adapter_model.safetensors")) == {
        f"base_model.model.{SITE}.lora_{part}.weight" for part in "AB"
    }
    ran = run("export", session, "--format", "hf", "--out", merged, "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["same"], ran.json["lost"]) == (2, [])
    before, after = (load_file(f / "model.safetensors") for f in (Path(model), merged))
    assert [k for k in before if not before[k].equal(after[k])] == [f"{SITE}.weight"]

    assert run("undo", 2).code == 0
    assert answer() == (first, [])
