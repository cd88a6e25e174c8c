"""The commands that only look: models, methods, config, doctor, sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Run
from .small import QUESTION


def test_models(run: Run, model: Path) -> None:
    rows = {row["name"]: row for row in run("models", "list", "--json").json["models"]}
    assert rows["smollm2-135m"]["kind"] == "asset"
    assert rows["gpt-j"]["source"].lower().startswith("eleutherai/gpt-j")
    told = run("models", "info", model, "--json").json
    assert (told["model_type"], told["layers"], told["width"]) == ("llama", 2, 16)
    assert told["parameters"] > 0
    assert f"{told['parameters'] / 1e6:.1f} million" in run("models", "info", model).out
    assert run("models", "fetch", model, "--json").json["folder"] == str(model)
    assert run("models", "fetch", "no-such-model").code == 2


def test_the_shape_of_a_model_that_is_not_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_EDIT_CACHE", str(tmp_path / "empty"))
    told = run("models", "info", "gemma3-270m", "--json").json
    assert (told["folder"], told["model_type"], told["layers"]) == (None, "gemma3_text", 18)
    assert (told["width"], told["vocabulary"]) == (640, 262_144)
    said = run("models", "info", "gemma3-270m").out
    assert "not here yet: llm-edit models fetch gemma3-270m" in said
    assert "268.1 million" in said
    assert "253 MB" in said


def test_methods(run: Run) -> None:
    found = {m["name"]: m for m in run("methods", "--json").json["methods"]}
    assert found["r-rome"]["needs_subject"] is True
    assert "arXiv" in found["rome"]["paper"]
    assert "r-rome" in run("methods").out


def test_config_says_where_a_setting_comes_from(run: Run) -> None:
    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    (home / "config.toml").write_text('method = "rome"\nseed = 7\n')
    shown = run("config", "show", "--json").json
    assert shown["settings"]["method"] == "rome"
    assert shown["sources"]["method"] == str(home / "config.toml")
    assert shown["sources"]["model"] == "default"
    assert run("config", "path").out.strip() == str(home / "config.toml")
    assert str(home / "config.toml") in run("config", "validate").out


def test_keys_and_theme_of_the_configuration_are_checked(run: Run) -> None:
    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    file = home / "config.toml"
    file.write_text('theme = "light"\nenter = "newline"\n[keys]\nfix = "F9"\n')
    assert run("config", "validate").code == 0
    found = {key["id"]: key["keys"] for key in run("config", "keys", "--json").json["keys"]}
    assert found["fix"] == "f9"
    assert found["undo"] == "f3"
    assert "F9" in run("config", "keys").out
    assert run("config", "show", "--json").json["settings"]["keys"] == {"fix": "f9"}
    for wrong, said in (
        ('[keys]\nfixx = "f9"', "[keys] has no action 'fixx'. Did you mean 'fix'?"),
        ('[keys]\nfix = "f3"', "[keys] fix: 'f3' is the key of 'undo'."),
        ('theme = "neon"', "there is no theme 'neon'."),
        ('keys = "f9"', "[keys] must be a table of actions"),
    ):
        file.write_text(wrong)
        ran = run("config", "validate")
        assert ran.code == 2
        assert said in ran.err
        assert str(file) in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('method = "r-rom"', "unknown method 'r-rom'. Did you mean 'r-rome'?"),
        ('model = "gptj"', "unknown model 'gptj'. Did you mean 'gpt-j'?"),
        ('model = "./nowhere"', "nowhere."),
        ('dtype = "fp7"', "unknown dtype 'fp7'. Try auto, fp32, bf16 or fp16."),
        ('device = "gpu"', "unknown device 'gpu'. Try cpu, cuda, cuda:1 or mps."),
    ],
)
def test_what_the_configuration_names_must_be_there(run: Run, line: str, said: str) -> None:
    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    (home / "config.toml").write_text(line)
    ran = run("config", "validate")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {home / 'config.toml'}: ")
    assert said in ran.err


def test_a_configured_model_may_be_alias_hub_id_or_folder(run: Run, model: Path) -> None:
    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    for name in ("gpt-j", "some/model", model):
        (home / "config.toml").write_text(f'model = "{name}"')
        assert run("config", "validate").code == 0


def test_the_configured_model_is_used(run: Run, model: Path) -> None:
    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    (home / "config.toml").write_text(f'model = "{model}"\nmax_tokens = 2\n')
    ran = run("ask", QUESTION, "--json")
    assert ran.json["model"] == str(model)
    assert ran.json["tokens"] <= 2


def test_home_is_where_it_is_said_to_be(run: Run, tmp_path: Path, monkeypatch: object) -> None:
    ran = run("config", "path", "--home", tmp_path / "elsewhere")
    assert ran.out.strip() == str(tmp_path / "elsewhere" / "config.toml")


def test_doctor(run: Run, model: Path) -> None:
    ran = run("doctor", "--model", model, "--json")
    assert ran.code == 0
    told = {finding["name"]: finding for finding in ran.json["findings"]}
    assert told["torch"]["state"] == "ok"
    assert told["model"]["value"].endswith(str(model))
    assert told["database"]["state"] == "info"
    assert not (Path(os.environ["LLM_EDIT_HOME"]) / "sessions.db").exists()
    assert {"device", "dtype", "home", "cache", "memory"} <= set(told)
    assert "python" in run("doctor", "--model", model).out


def test_doctor_finds_a_home_that_cannot_be_written(run: Run, model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    ran = run("doctor", "--model", model, "--home", blocked / "home", "--json")
    assert ran.code == 3
    told = {finding["name"]: finding for finding in ran.json["findings"]}
    assert told["home"]["state"] == "missing"


def test_sessions_can_be_found_named_and_removed(run: Run, model: Path) -> None:
    assert "no sessions yet" in run("sessions", "list").out
    run("ask", QUESTION, "--model", model)
    (row,) = run("sessions", "list", "--json").json["sessions"]
    assert run("sessions", "rename", row["id"], "capitals", "--json").json["title"] == "capitals"
    assert QUESTION in run("sessions", "show", "capitals").out
    (hit,) = [h for h in run("sessions", "search", "austral", "--json").json["hits"]
              if h["kind"] == "question"]  # fmt: skip
    assert hit["session"] == row["id"]
    assert run("sessions", "rm", "capitals", stdin="n\n").code == 130
    removed = run("sessions", "rm", "capitals", "--yes", "--json").json
    assert removed == {"removed": [row["id"]], "files": 0, "vacuumed": True}
    assert run("sessions", "list", "--json").json["sessions"] == []
