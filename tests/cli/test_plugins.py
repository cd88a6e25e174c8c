"""Methods that other packages add: found, run, recorded and undone like ours."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, Run
from .small import QUESTION

EXAMPLE = ROOT / "tests" / "plugin_example"
QUICK = ("--dtype", "fp32", "--hp", "contexts=2", "--hp", "steps=8", "--hp", "relative_lr=2",
         "--hp", "clamp=20", "--hp", "turns=1")  # fmt: skip


def install(into: Path, *, points: dict[str, str] | None = None) -> Path:
    """What installing the example leaves in a folder of packages: its files and its metadata."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    package = "llm_edit_least"
    shutil.copytree(EXAMPLE / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
    info = into / f"{package}-{project['version']}.dist-info"
    info.mkdir()
    name, version = project["name"], project["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    named = points or project["entry-points"]["llm_edit.methods"]
    lines = [f"{key} = {value}" for key, value in named.items()]
    (info / "entry_points.txt").write_text("\n".join(["[llm_edit.methods]", *lines]) + "\n")
    return into


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages on the path of this process; forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "llm_edit_least"]:
        del sys.modules[name]


@pytest.fixture
def example(site: Path) -> Path:
    install(site)
    importlib.invalidate_caches()
    return site


def test_an_installed_package_adds_its_method(run: Run, example: Path) -> None:
    rows = {row["name"]: row for row in run("methods", "--json").json["methods"]}
    assert rows["least-change"]["batch"] is True
    assert "r-rome" in rows
    assert "least-change" in run("methods").out


def test_it_edits_is_recorded_and_undone_exactly(run: Run, model: Path, example: Path) -> None:
    def answer() -> str:
        ran = run("ask", QUESTION, "--model", model, "--json", "--dtype", "fp32")
        assert ran.code == 0, ran.err
        return ran.json["answer"]

    before = answer()
    ran = run("edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--json",
              "--model", model, "--method", "least-change", *QUICK)  # fmt: skip
    assert ran.code in (0, 1), ran.err  # whether a random model learns it is not the question
    row = ran.json
    assert (row["method"], row["layers"][0]["rank"]) == ("least-change", 1)
    assert row["layers"][0]["site"] == "model.layers.0.mlp.down_proj"  # 8% of its default.yaml
    assert row["after"]["p_new"] > row["before"]["p_new"]
    edited = answer()
    assert edited == row["after"]["answer"] != before
    assert run("undo", "--json").code == 0
    assert answer() == before
    assert run("redo").code == 0
    assert answer() == edited


def test_undo_leaves_the_same_logits(tiny_lm, example: Path) -> None:  # type: ignore[no-untyped-def]
    import torch

    from engine import methods
    from engine.correct import hparams_of
    from engine.requests import Request
    from tests.engine.support import finish

    lm = tiny_lm("llama")
    prompts = [lm.statement(text) for text in ("The Space Needle is in", "Emma was written by")]
    facts = [
        Request(prompt="The Space Needle is in the city of", subject="Space Needle",
                target_new="Paris"),
        Request(prompt="Emma was written by", subject="Emma", target_new="the Romans"),
    ]  # fmt: skip
    info = methods.get("least-change")
    given = {"contexts": "2", "steps": "3"}
    hp, sources = hparams_of(lm, info, given, seed=0)
    assert Path(sources["clamp"]) == example / "llm_edit_least/hparams/least-change/default.yaml"
    before = lm.logits(prompts)
    _, edit = finish(info.run()(lm, facts, hp))
    assert edit.patches[0].rank == 2
    with lm.active(edit.patches):
        assert not torch.equal(lm.logits(prompts), before)
    assert torch.equal(lm.logits(prompts), before)


def test_its_presets_and_the_users_own_file_hold(run: Run, model: Path, example: Path) -> None:
    preset = example / "llm_edit_least" / "hparams" / "least-change" / "tiny.yaml"
    preset.write_text("match: {model_type: llama, n_layers: 2, width: 16}\nlayer: 1\n")
    ran = run("edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--json",
              "--model", model, "--method", "least-change", *QUICK)  # fmt: skip
    assert ran.json["layers"][0]["site"] == "model.layers.1.mlp.down_proj"
    own = Path(os.environ["LLM_EDIT_HOME"]) / "hparams" / "least-change"
    own.mkdir(parents=True)
    (own / f"{model.name}.yaml").write_text("layer: 0\n")
    assert run("config", "validate").code == 0
    ran = run("edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--json",
              "--model", model, "--method", "least-change", *QUICK)  # fmt: skip
    assert ran.json["layers"][0]["site"] == "model.layers.0.mlp.down_proj"
    (own / f"{model.name}.yaml").write_text("laier: 0\n")
    ran = run("config", "validate")
    assert ran.code == 2
    assert "unknown key 'laier'" in ran.err


def test_a_method_without_files_runs_on_the_defaults_of_its_class(
    run: Run, model: Path, example: Path
) -> None:
    shutil.rmtree(example / "llm_edit_least" / "hparams")
    ran = run("edit", QUESTION, "--subject", "Australia", "--target", "Paris",
              "--model", model, "--method", "least-change", *QUICK)  # fmt: skip
    assert ran.code == 2
    assert "missing key 'layer' (a layer)" in ran.err  # which has no default
    ran = run("edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--json",
              "--model", model, "--method", "least-change", "--hp", "layer=1", *QUICK)  # fmt: skip
    assert ran.code in (0, 1), ran.err
    assert ran.json["layers"][0]["site"] == "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("broken", "llm_edit_least.lost:INFO", "ModuleNotFoundError"),
        ("broken", "json:loads", "is no MethodInfo"),
        ("rome", "llm_edit_least.impostor:INFO", "there is a method 'rome' already"),
    ],
)
def test_a_broken_package_is_named_and_the_others_work(
    run: Run, site: Path, name: str, value: str, reason: str
) -> None:
    install(site, points={"least-change": "llm_edit_least:INFO", name: value})
    (site / "llm_edit_least" / "impostor.py").write_text(
        "import dataclasses\nfrom . import INFO\nINFO = dataclasses.replace(INFO, name='rome')\n"
    )
    ran = run("methods")
    assert ran.code == 0
    assert f"left out: {name}: {value}" in ran.err
    assert reason in ran.err
    assert "Traceback" not in ran.err
    assert "least-change" in ran.out
    if name == "broken":
        ran = run("edit", QUESTION, "--target", "Paris", "--method", "broken")
        assert ran.code == 2
        assert f"method 'broken' cannot be used: {value}" in ran.err


def test_listing_it_imports_no_torch(tmp_path: Path) -> None:
    install(tmp_path)
    probe = (
        "import sys; from llm_edit.__main__ import run; code = run(['methods']);"
        "sys.exit(code or ('torch' in sys.modules) * 9)"
    )
    paths = [str(ROOT), str(tmp_path), os.environ.get("PYTHONPATH", "")]
    found = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "least-change" in found.stdout


def test_its_page_quotes_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = [block.partition("\n")[::2] for block in page.split("```")[1::2]]
    files = ("pyproject.toml", "llm_edit_least/__init__.py")
    texts = [(EXAMPLE / file).read_text(encoding="utf-8") for file in files]
    quoted = [body.strip() for kind, body in blocks if kind in ("toml", "python")]
    assert sum(any(body in text for text in texts) for body in quoted) == 3
