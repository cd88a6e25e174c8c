"""What is wrong with settings is said before a model is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.lm import LM

from .conftest import Run, one_line
from .small import QUESTION, hparams

pytestmark = pytest.mark.usefixtures("own_folders")

EDIT = ("edit", "The capital of Australia is", "--target", "Paris", "--model", "gpt-j")


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(LM, "load", load)


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*EDIT, "--hp", "step=3"), "unknown key 'step'. Did you mean 'steps'?"),
        ((*EDIT, "--hp", "steps=abc"), "'steps' must be a whole number, not 'abc'."),
        ((*EDIT, "--hp", "steps=-3"), "'steps' must be above 0, not -3."),
        ((*EDIT, "--hp", "layer=-1"), "'layer' must be a layer from 0 up, not '-1'."),
        ((*EDIT, "--hp", "preset=x"), "r-rome has no preset 'x'. Known: reference."),
        ((*EDIT, "--method", "memit", "--hp", "first=9", "--hp", "last=2"),
         "first (9) must not be above last (2)"),
        ((*EDIT, "--method", "memit", "--hp", "layer=3"), "unknown key 'layer'."),
        ((*EDIT, "--dtype", "fp7"), "unknown dtype 'fp7'. Try auto, fp32, bf16 or fp16."),
        ((*EDIT, "--device", "gpu"), "unknown device 'gpu'. Try cpu, cuda, cuda:1 or mps."),
        (("export", "lost", "--format", "hf", "--out", "o", "--device", "gpu"),
         "unknown device 'gpu'."),
        (("ask", "x", "--dtype", "fp7"), "unknown dtype 'fp7'."),
        (("ask", "x", "--device", "gpu"), "unknown device 'gpu'."),
        (("chat", "--hp", "step=3"), "unknown key 'step'. Did you mean 'steps'?"),
        (("trace", "Emma is", "--subject", "Emma", "--device", "gpu"), "unknown device 'gpu'."),
        (("resolve", "--hp", "ridg=1"), "unknown key 'ridg'. Did you mean 'ridge'?"),
        (("resolve", "--again", "1", "--hp", "method=mem"), "unknown method 'mem'"),
        (("resolve",), "0 of the acting edits can be solved again; it takes two."),
        (("resolve", "--fit", "3"), "0 of the acting edits can be solved again; it takes one."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_said_before_a_model_is_loaded(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in one_line(ran.err)


@pytest.mark.usefixtures("no_loading")
def test_a_device_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    ran = run(*EDIT, "--device", "cuda")
    assert ran.code == 2
    assert "there is no device 'cuda': torch sees 0 CUDA devices." in one_line(ran.err)


@pytest.mark.usefixtures("no_loading")
def test_settings_of_benchmarks(run: Run, tmp_path: Path) -> None:
    rows = [
        {"subject": name, "src": f"Where is {name}?", "rephrase": f"Where is {name}?",
         "alt": "Paris", "answers": ["Oslo"], "case_id": i}
        for i, name in enumerate(("Dan Ho", "Ann Lee"))
    ]  # fmt: skip
    data = tmp_path / "facts.json"
    data.write_text(json.dumps(rows))
    for arguments in (
        ("bench", "run", "--hp", "clmp=1"),
        ("bench", "chat", "--arm", "mine:clmp=1"),
        ("bench", "all", "--arm", "mine:clmp=1"),
        ("bench", "sequence", "--arm", "mine:clmp=1"),
        ("tune", "r-rome", "--hp", "clmp=1"),
        ("tune", "r-rome", "--try", "clmp=1,2"),
    ):
        given = () if arguments[:2] == ("bench", "chat") else ("--data", data)
        ran = run(*arguments, *given)
        assert ran.code == 2
        assert "unknown key 'clmp'. Did you mean 'clamp'?" in one_line(ran.err)


@pytest.mark.usefixtures("no_loading")
def test_settings_of_a_file_of_facts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    fact = {"prompt": "a", "target_new": "b", "method": "ft-m", "hparams": {"step": 3}}
    file.write_text(json.dumps(fact))
    ran = run("edit", "--file", file)
    assert ran.code == 2
    assert "unknown key 'step'. Did you mean 'steps'?" in one_line(ran.err)


def test_the_method_is_that_of_the_session(run: Run, model: Path, tmp_path: Path) -> None:
    own = [part for k, v in hparams(tmp_path).items() if k != "both"
           for part in ("--hp", f"{k}={v}")]  # fmt: skip
    edit = ("edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--no-probes")
    made = run(*edit, "--model", model, "--dtype", "fp32", "--method", "memit", *own, "--json")
    ran = run(*edit, "--session", made.json["session"], "--hp", "layer=1")
    assert "unknown key 'layer'" in one_line(ran.err)
    assert "first, " in ran.err


@pytest.mark.parametrize("given", ["first=5", "last=1", "first=30"])
def test_nothing_is_refused_that_some_model_takes(given: str) -> None:
    from engine import config

    key, _, value = given.partition("=")
    config.check("memit", {key: value})
    broken = Path(os.environ["LLM_EDIT_HOME"]) / "hparams" / "memit" / "other.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("firs: 3\n")
    config.check("memit", {key: value})
