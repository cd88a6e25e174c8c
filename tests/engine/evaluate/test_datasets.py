"""Readers of benchmark files."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BadFile, BadInput, UnknownName
from engine.evaluate import datasets
from engine.requests import Probe

ROME = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} is native to",
        "relation_id": "P19",
        "subject": "Ada Low",
        "target_new": {"str": "Oslo", "id": "Q1"},
        "target_true": {"str": "Rome", "id": "Q2"},
    },
    "paraphrase_prompts": ["Rain fell. Ada Low was born in", "Hm. Ada Low comes from"],
    "neighborhood_prompts": ["Bo Ek is from", "Cy Ore is from"],
}
FLAT = {
    "case_id": 8,
    "prompt": "What does Dan Ho play? He plays",
    "target_new": "soccer",
    "subject": "Dan Ho",
    "ground_truth": "chess",
    "rephrase_prompt": "The sport of Dan Ho is",
    "locality_prompt": "Eve Poe plays",
    "locality_ground_truth": "chess",
}
ZSRE = {
    "subject": "Fir Creek",
    "src": "Which river is Fir Creek in?",
    "pred": "Alm",
    "rephrase": "What river does Fir Creek join?",
    "alt": "Dee",
    "answers": ["Alm River"],
    "loc": "nq question: who sang it",
    "loc_ans": "Bo",
}


def write(path: Path, rows: Any) -> Path:
    lines = ".jsonl" in path.name
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def test_counterfact_as_rome_has_it(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "cf.json", [ROME]))
    (record,) = found.records
    assert (found.name, found.format) == ("cf", "counterfact")
    assert record.id == "7"
    assert record.contrast
    assert record.request.prompt == "Ada Low is native to"
    assert (record.request.target_new, record.request.target_old) == ("Oslo", "Rome")
    assert record.request.rephrases == tuple(ROME["paraphrase_prompts"])  # type: ignore[arg-type]
    assert record.neighbours[1] == Probe(prompt="Cy Ore is from", answer="Rome")
    assert record.request.neighbours == ("Bo Ek is from", "Cy Ore is from")


@pytest.mark.parametrize("name", ["flat.json", "flat.json.gz", "lines.jsonl", "lines.jsonl.gz"])
def test_flat_counterfact_in_every_wrapping(tmp_path: Path, name: str) -> None:
    found = datasets.load(write(tmp_path / name, [FLAT]))
    (record,) = found.records
    assert found.format == "counterfact-flat"
    assert record.request.prompt == FLAT["prompt"]
    assert record.request.rephrases == ("The sport of Dan Ho is",)
    assert record.neighbours == (Probe(prompt="Eve Poe plays", answer="chess"),)
    assert record.contrast


def test_zsre_as_mend_has_it(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "z.json", [ZSRE]))
    (record,) = found.records
    assert found.format == "zsre"
    assert not record.contrast
    assert (record.request.target_new, record.request.target_old) == ("Dee", "Alm River")
    assert record.neighbours == (Probe(prompt="who sang it?", answer="Bo"),)


def test_zsre_without_locality(tmp_path: Path) -> None:
    row = {k: v for k, v in ZSRE.items() if not k.startswith("loc")}
    (record,) = datasets.load(write(tmp_path / "z.json", [row])).records
    assert record.neighbours == ()


def test_records_that_edit_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {**ZSRE, "alt": "alm river"},
        {**ZSRE, "subject": "Elm Creek"},
        {**ZSRE, "src": "Fir Creek or Fir Creek?"},
        ZSRE,
    ]
    found = datasets.load(write(tmp_path / "z.json", rows), n=1)
    assert len(found.records) == 1
    assert found.skipped == {
        "the target is a true answer": 1,
        "the subject is not in the prompt": 1,
        "the subject is in the prompt twice": 1,
    }


def test_the_checksum_is_that_of_the_stored_file(tmp_path: Path) -> None:
    plain = datasets.load(write(tmp_path / "a.json", [FLAT]))
    packed = datasets.load(write(tmp_path / "a.json.gz", [FLAT]))
    assert plain.sha256 != packed.sha256
    assert plain.records == packed.records


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[{},\n{]", r"a\.json:2: is not JSON"),
        ("a.jsonl", json.dumps(FLAT) + "\n\n{oops", r"a\.jsonl:3: is not JSON"),
        ("a.json", "{}", "is not a list of records"),
        ("a.json", "[]", "has no records"),
        ("a.json", '[{"x": 1}]', "none of the formats"),
        ("a.json", json.dumps([FLAT, {"case_id": 2}]), "record 2 is broken: field 'prompt'"),
        ("a.json", json.dumps([FLAT, 3]), "record 2 is broken"),
        ("a.json", json.dumps([{**FLAT, "subject": 3}]), "record 1 is broken: 3 where text"),
        ("a.json", json.dumps([{**FLAT, "target_new": " "}]), "record 1 is broken: ''"),
        ("a.json.gz", "not gzip", "cannot be read"),
    ],
)
def test_a_broken_file_is_named_with_its_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=message):
        datasets.load(path)


def test_files_are_found_by_path_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_EDIT_DATA", raising=False)
    path = write(tmp_path / "flat.json.gz", [FLAT])
    assert datasets.find(str(path)) == path
    with pytest.raises(BadInput, match="LLM_EDIT_DATA"):
        datasets.find("flat")
    monkeypatch.setenv("LLM_EDIT_DATA", str(tmp_path))
    assert datasets.find("flat") == path
    assert datasets.find("flat.json.gz") == path
    with pytest.raises(UnknownName, match=re.escape("Did you mean 'flat.json.gz'?")):
        datasets.find("flat.jsn.gz")


def test_describing_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "flat.json.gz", [FLAT, FLAT])
    (tmp_path / "other.json").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    told = {p.name: datasets.describe(p) for p in datasets.available(tmp_path)}
    assert told == {"flat.json.gz": ("counterfact-flat", 2), "other.json": None}


def test_reading_imports_no_torch() -> None:
    code = "import sys, engine.evaluate.datasets, engine.evaluate.entities as e; e.known(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kind", "least", "neighbours"),
    [
        ("counterfact_rome_random", "counterfact", 390, 10),
        ("counterfact_paraphrase_eval", "counterfact-flat", 2200, 1),
        ("zsre_eval", "zsre", 2100, 1),
    ],
)
def test_the_real_files(name: str, kind: str, least: int, neighbours: int) -> None:
    if not os.environ.get("LLM_EDIT_DATA"):
        pytest.skip("LLM_EDIT_DATA is not set")
    found = datasets.load(datasets.find(name))
    assert found.format == kind
    assert len(found.records) >= least
    assert len({r.id for r in found.records}) == len(found.records)
    assert {len(r.neighbours) for r in found.records} == {neighbours}


def test_skip_goes_on_where_the_first_records_end(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    row = {
        "requested_rewrite": {
            "prompt": "{} is in",
            "subject": "A",
            "target_new": {"str": "x"},
            "target_true": {"str": "y"},
        },
        "paraphrase_prompts": [],
        "neighborhood_prompts": [],
    }
    path.write_text(json.dumps([{**row, "case_id": i} for i in range(5)]), encoding="utf-8")
    whole, rest = datasets.load(path), datasets.load(path, 2, skip=1)
    assert rest.records == whole.records[1:3]
    assert rest.name != whole.name
