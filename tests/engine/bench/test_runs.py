"""The benchmarks end to end, with real edits of a tiny random model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.bench import chatlist, report, runner, speed
from engine.bench.chatlist import Item, Question
from engine.bench.exact import QUESTIONS, STATEMENTS, UndoNotExact, check_undone, fixed_logits
from engine.bench.peak import peak_memory
from engine.bench.results import Results, environment
from engine.errors import BadInput, BadSetting, EditFailed
from engine.evaluate import datasets
from engine.evaluate.metrics import judge, measure
from engine.events import Loading
from engine.lm import LM
from engine.patches import LowRank
from llm_edit.__main__ import run
from tests.engine.evaluate.test_datasets import FLAT, ROME
from tests.engine.support import Bench, finish, state, traces


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [ROME, {**ROME, "case_id": 9, "requested_rewrite": {
        **ROME["requested_rewrite"], "subject": "Jane", "target_new": {"str": "Paris"},
    }}]  # fmt: skip
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def begin(lm: LM, data: Path, settings: runner.Settings, path: Path) -> tuple[Any, Results]:
    found = datasets.load(data)
    told = settings.to_json(lm, found)
    return found, Results.open(path, "run", told, environment("llm-edit bench run"))


# -- exact undo -----------------------------------------------------------------------------------


def test_twenty_different_prompts(lm: LM) -> None:
    assert len(set(STATEMENTS + QUESTIONS)) == 20
    assert fixed_logits(lm).shape == (20, lm.model.config.vocab_size)


def test_a_trace_of_an_edit_is_found(lm: LM) -> None:
    fresh = fixed_logits(lm)
    check_undone(lm, fresh, "e1")
    weight = lm.model.get_submodule(lm.site("mlp_out", 1)).weight
    weight[3, 5] += 1e-3
    with pytest.raises(UndoNotExact, match="after undoing edit e1") as caught:
        check_undone(lm, fresh, "e1")
    assert caught.value.exit_code == 1


def test_an_active_patch_is_found_and_gone_with_its_block(lm: LM) -> None:
    fresh = fixed_logits(lm)
    patch = LowRank(lm.site("mlp_out", 0), torch.ones(16, 1), torch.ones(1, 24) * 1e-3)
    with lm.active([patch]), pytest.raises(UndoNotExact):
        check_undone(lm, fresh, "e1")
    check_undone(lm, fresh, "e1")


# -- bench run ------------------------------------------------------------------------------------


def test_a_run_leaves_the_model_as_it_was(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    before = state(lm.model)
    settings = runner.Settings(overrides=overrides)
    found, results = begin(lm, data, settings, tmp_path / "r.jsonl")
    events, _ = finish(runner.run(lm, found.records, settings, results))
    assert state(lm.model) == before
    assert traces(lm.model) == {}
    assert list(results.rows) == ["7", "9"]
    told = [e for e in events if isinstance(e, Loading) and e.stage == "bench"]
    assert [(e.done, e.total) for e in told] == [(1, 2), (2, 2)]
    for row in results.rows.values():
        assert row["exact"] is True
        assert row["metrics"]["EM"]["after"] != row["metrics"]["EM"]["before"]
        assert row["metrics"]["loc"]["before"] == 1.0
        assert row["seconds"]["total"] >= row["seconds"]["optimise"] > 0
    unedited = measure(lm, found.records[1])
    base = judge(found.records[1], unedited, unedited)
    for name, values in results.rows["9"]["metrics"].items():
        assert values["before"] == base[name]["before"]  # of a model that no record has touched
    summary = runner.summary(results)
    assert (summary["n"], summary["exact"], summary["failed"]) == (2, 2, 0)
    assert {"ES", "PS", "NS", "said", "rephrased"} <= set(summary["metrics"])
    json.dumps(summary, allow_nan=False)


def test_the_unedited_model_is_measured_once_for_all_methods(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(runner, "measure", lambda *a: calls.append(a) or measure(*a))
    settings = runner.Settings(overrides=overrides)
    unedited: dict[str, Any] = {}
    rows = []
    for name in ("first", "second"):
        found, results = begin(lm, data, settings, tmp_path / f"{name}.jsonl")
        finish(runner.run(lm, found.records, settings, results, unedited))
        rows.append({id: row["metrics"] for id, row in results.rows.items()})
    assert len(calls) == 2 + 2 + 2  # records unedited once, edited twice
    assert rows[0] == rows[1]


def test_a_run_goes_on_where_it_stopped(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    settings = runner.Settings(overrides=overrides)
    whole, once = begin(lm, data, settings, tmp_path / "once.jsonl")
    finish(runner.run(lm, whole.records, settings, once))
    found, first = begin(lm, data, settings, tmp_path / "twice.jsonl")
    finish(runner.run(lm, found.records[:1], settings, first))
    _, second = begin(lm, data, settings, tmp_path / "twice.jsonl")
    finish(runner.run(lm, found.records, settings, second))
    events, _ = finish(runner.run(lm, found.records, settings, second))
    assert events == []  # nothing is left to do
    assert {k: r["metrics"] for k, r in second.rows.items()} == {
        k: r["metrics"] for k, r in once.rows.items()
    }
    assert second.rows["7"] == first.rows["7"]


def test_records_that_cannot_be_edited_count_as_unchanged(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise EditFailed("no update.")
        yield

    monkeypatch.setattr(runner, "timed", fails)
    settings = runner.Settings(overrides=overrides)
    found, results = begin(lm, data, settings, tmp_path / "r.jsonl")
    finish(runner.run(lm, found.records, settings, results))
    summary = runner.summary(results)
    assert (summary["n"], summary["failed"]) == (2, 2)
    for line in runner.lines(results):
        assert line.change.mean == 0
    assert "2 of 2 edits failed" in report.render(results)


def test_no_records(lm: LM, tmp_path: Path, data: Path, overrides: dict[str, str]) -> None:
    settings = runner.Settings(overrides=overrides)
    _, results = begin(lm, data, settings, tmp_path / "r.jsonl")
    with pytest.raises(BadInput, match="no records"):
        finish(runner.run(lm, [], settings, results))


def test_settings_tell_what_could_change_the_numbers(
    lm: LM, data: Path, overrides: dict[str, str]
) -> None:
    found = datasets.load(data)
    base = runner.Settings(overrides=overrides).to_json(lm, found)
    others = [
        runner.Settings(overrides={**overrides, "steps": "3"}).to_json(lm, found),
        runner.Settings(overrides=overrides, seed=1).to_json(lm, found),
        runner.Settings(overrides=overrides, chat=True).to_json(lm, found),
        runner.Settings(overrides=overrides, method="rome").to_json(lm, found),
        runner.Settings(overrides=overrides).to_json(lm, dataclasses.replace(found, sha256="0")),
    ]
    assert all(other != base for other in others)
    assert base["hparams"]["steps"] == 12


def test_reports_and_comparison(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    files = []
    for steps in ("1", "12"):
        settings = runner.Settings(overrides={**overrides, "steps": steps})
        found, results = begin(lm, data, settings, tmp_path / f"{steps}.jsonl")
        finish(runner.run(lm, found.records, settings, results))
        files.append(results)
    text = report.render(files[1])
    assert "| greedy success " in text
    assert "change (points)" in text
    assert found.sha256[:12] in text
    assert "After 2 of 2 undos" in text
    both = report.compare(files)
    assert "| A " in both
    assert "| B " in both
    assert "n = 2 records" in both
    with pytest.raises(BadInput, match="no records in common"):
        report.compare([files[0], Results(files[1].path, files[1].header, {})])


# -- bench speed ----------------------------------------------------------------------------------


def test_speed_times_both_loops_and_memory(
    lm: LM, tmp_path: Path, overrides: dict[str, str]
) -> None:
    before = state(lm.model)
    plan = speed.Plan(overrides=overrides, facts=3, memory=1)
    told = speed.settings_of(lm, plan)
    results = Results.open(tmp_path / "s.jsonl", "speed", told, environment("c"))
    finish(speed.run(lm, plan, results))
    assert state(lm.model) == before
    found = speed.summary(results)
    for kind in speed.KINDS:
        arms = found["kinds"][kind]
        assert arms["fast"]["n"] == arms["plain"]["n"] == 3
        assert 0 < arms["fast"]["median"] <= arms["fast"]["p95"]
        assert arms["ratio"] > 0
        assert arms["memory"]["peak"] >= 0
    assert found["warm_up"]["model"] == lm.bytes
    text = report.render(results)
    assert "plain / fast" in text
    assert "peak above the loaded model" in text


def test_fast_and_plain_agree_in_float32(lm: LM, overrides: dict[str, str]) -> None:
    rows = finish(speed.check(lm, speed.Plan(overrides=overrides, facts=2)))[1]
    assert len(rows) == 4
    assert all(row["equal"] for row in rows), rows


def test_a_difference_is_not_equal(lm: LM, overrides: dict[str, str]) -> None:
    logits = {"fast": torch.tensor([[1.0, 0.0]]), "plain": torch.tensor([[1.0, 0.1]])}
    request = speed.requests("statement", 1)[0]
    hp = speed.hparams(lm, "r-rome", overrides)
    _, (edit, _) = finish(speed.timed(lm, "r-rome", [request], hp))
    assert not speed._compared({"fast": edit, "plain": edit}, logits)["equal"]


def test_check_wants_float32(lm: LM, overrides: dict[str, str]) -> None:
    lm.model.to(torch.bfloat16)
    with pytest.raises(BadInput, match="float32"):
        finish(speed.check(lm, speed.Plan(overrides=overrides, facts=1)))


def test_many_facts_in_one_edit(lm: LM, tmp_path: Path, overrides: dict[str, str]) -> None:
    fixed = {k: v for k, v in overrides.items() if k != "layer"} | {"first": "0", "last": "1"}
    plan = speed.Plan(
        method="memit",
        overrides=fixed,
        kinds=("statement",),
        facts=1,
        plain=False,
        memory=0,
        batch=9,
    )
    told = speed.settings_of(lm, plan)
    results = Results.open(tmp_path / "s.jsonl", "speed", told, environment("c"))
    finish(speed.run(lm, plan, results))
    assert results.rows["batch:9"]["facts"] == 9
    text = report.render(results)
    assert "9 statements in one edit: " in text
    assert "of the median alone" in text
    assert lm.patches == ()


def test_a_method_for_one_fact_makes_no_batch(lm: LM, tmp_path: Path) -> None:
    results = Results(tmp_path / "s.jsonl", {}, {})
    with pytest.raises(BadSetting, match="r-rome edits one fact at a time"):
        finish(speed.run(lm, speed.Plan(batch=2), results))


def test_facts_of_each_kind() -> None:
    for kind in speed.KINDS:
        found = speed.requests(kind)
        assert len({r.prompt for r in found}) == len(speed.FACTS) == 32
        assert all(r.subject and r.chat is (kind == "chat") for r in found)


def test_peak_memory_sees_what_a_block_takes() -> None:
    with peak_memory() as peak:
        taken = torch.ones(16_000_000)
        del taken
    assert 50e6 < peak() < 200e6


# -- bench chat -----------------------------------------------------------------------------------


def test_the_chat_list_is_asked_corrected_and_undone(
    lm: LM, tmp_path: Path, overrides: dict[str, str]
) -> None:
    before = state(lm.model)
    items = [
        Item(
            id=name,
            kind="country",
            question=Question(f"What is the capital of {name}?", ("x",)),
            subject=name,
            target="Seattle",
            neighbours=tuple(Question(f"What is the capital of {n}?", ("y",)) for n in "CD"),
        )
        for name in ("Australia", "England")
    ]
    arms = {"all": overrides, "few": {**overrides, "steps": "1"}}
    told = chatlist.settings_of(lm, method="r-rome", arms=arms, seed=0, path=None)
    results = Results.open(tmp_path / "c.jsonl", "chat", told, environment("c"))
    finish(chatlist.run(lm, items, results, method="r-rome", arms=arms))
    assert state(lm.model) == before
    assert len(list(results.of(arm="before"))) == 2
    for arm in arms:
        rows = list(results.of(arm=arm))
        assert len(rows) == 2
        assert all(row["exact"] for row in rows)
    many, few = (results.rows[f"{arm}:Australia"] for arm in arms)
    assert many["before"] == few["before"]
    assert many["after"] != few["after"]
    stored = len(results.rows)
    finish(chatlist.run(lm, items, results, method="r-rome", arms=arms))
    assert len(results.rows) == stored


# -- the command line -----------------------------------------------------------------------------


def test_run_from_the_command_line(
    bench: Bench, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "--data", data, "--n", 2)
    assert bench(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"] == 2
    assert told["settings"]["data"] == "facts"
    (file,) = (tmp_path / "out").iterdir()
    assert run(["bench", "report", str(file)]) == 0
    table = capsys.readouterr().out
    assert "| greedy success " in table
    assert bench(*words) == 0  # everything is there already
    assert capsys.readouterr().out == table
    assert run(["bench", "report", "--compare", str(file), str(file)]) == 0
    assert "n = 2 records" in capsys.readouterr().out


def test_an_undo_that_is_not_exact_is_a_failure(
    bench: Bench, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = runner.timed

    def leaves_a_trace(lm: LM, *rest: Any) -> Any:
        found = yield from honest(lm, *rest)
        lm.model.get_submodule(lm.site("mlp_out", 0)).weight[0, 0] += 1e-3
        return found

    monkeypatch.setattr(runner, "timed", leaves_a_trace)
    assert bench("run", "--data", data) == 1
    captured = capsys.readouterr()
    assert "fixed prompts differ from the fresh model's" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--data", "x", "--hp", "steps"), "'steps' is not KEY=VALUE"),
        (("run", "--data", "x", "--n", "0"), "0 is not in the range"),
        (("run", "--data", "nowhere"), "there is no data file 'nowhere'"),
        (("chat", "--arm", "steps=2"), "is not NAME:KEY=VALUE"),
        (("report", "--compare", "--json", "x"), "leave out --json"),
        (("report", "nowhere"), "nowhere: there is no such file."),
    ],
)
def test_bad_usage(
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLM_EDIT_DATA", raising=False)
    assert run(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_list_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat.json").write_text(json.dumps([FLAT]), encoding="utf-8")
    monkeypatch.setenv("LLM_EDIT_DATA", str(tmp_path))
    assert run(["bench", "list"]) == 0
    assert "flat.json  counterfact-flat  1 records" in capsys.readouterr().out
    assert run(["bench", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"] == [{"file": "flat.json", "format": "counterfact-flat", "records": 1}]
    assert set(told["protocols"]) == {"run", "all", "sequence", "speed", "chat"}
