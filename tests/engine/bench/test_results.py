"""Results files: resumed after a crash, refused when they are about something else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from engine.bench.results import Results, cpu_name, environment, name_of
from engine.errors import BadFile, BadInput, MissingResource

SETTINGS = {"model": "m", "seed": 0, "list": (1, 2)}
ENVIRONMENT = {"command": "c"}


def begin(path: Path) -> Results:
    return Results.open(path, "run", SETTINGS, ENVIRONMENT)


def test_rows_survive(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.jsonl"
    first = begin(path)
    first.add("a", {"x": 1.5, "text": "é"})
    first.add("b", {"x": math.nan, "list": (math.inf,)})
    again = begin(path)
    assert again.rows == first.rows
    assert again.rows["b"] == {"key": "b", "x": None, "list": [None]}
    assert list(again.of(x=1.5)) == [again.rows["a"]]
    assert again.header["started"] == first.header["started"]


def test_a_line_cut_off_by_a_crash_is_dropped_and_done_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    begin(path).add("a", {"x": 1})
    with path.open("a") as file:
        file.write('{"key": "b", "x"')
    assert set(Results.read(path).rows) == {"a"}
    resumed = begin(path)
    assert set(resumed.rows) == {"a"}
    resumed.add("b", {"x": 2})
    assert set(Results.read(path).rows) == {"a", "b"}


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    begin(path)
    with pytest.raises(BadInput, match=r"other settings \(seed: 0, now 1\)"):
        Results.open(path, "run", {**SETTINGS, "seed": 1}, ENVIRONMENT)
    with pytest.raises(BadInput, match="another kind"):
        Results.open(path, "speed", SETTINGS, ENVIRONMENT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.jsonl:1: is not the header"),
        ('{"a": 1}\n', "r.jsonl:1: is not the header"),
        ("{oops\n", "r.jsonl:1: is not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(BadFile, match=message):
        Results.read(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingResource, match="cannot be written"):
        begin(tmp_path / "file" / "r.jsonl")


def test_names_tell_settings_apart() -> None:
    one = name_of("data", "r-rome", "org/model", settings={"a": 1})
    assert one.startswith("data-r-rome-org_model-")
    assert one.endswith(".jsonl")
    assert one != name_of("data", "r-rome", "org/model", settings={"a": 2})
    assert one == name_of("data", "r-rome", "org/model", settings={"a": 1})


def test_the_environment_can_be_cited() -> None:
    found = environment("llm-edit bench run")
    assert found["command"] == "llm-edit bench run"
    assert found["cpu"] == cpu_name() != ""
    assert found["threads"] >= 1
    assert set(found["versions"]) >= {"python", "torch", "transformers"}
    json.dumps(found)
