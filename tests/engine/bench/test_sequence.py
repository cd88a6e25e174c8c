"""Edits one after the other, and every method side by side, on a tiny random model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from engine.batch import ask_all, took
from engine.bench import courses, report, sequence
from engine.bench.once import hparams
from engine.bench.results import Results, environment
from engine.evaluate import datasets
from engine.events import EditPlanned
from engine.lm import LM
from engine.methods import get
from engine.requests import Request
from engine.statistics import HELD_OUT
from llm_edit.__main__ import run
from tests.engine.evaluate.test_datasets import ROME
from tests.engine.support import Bench, finish, shared_lm, state
from tests.tiny import save_tiny


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rewrite = ROME["requested_rewrite"]
    rows = [
        {**ROME, "case_id": i, "requested_rewrite": {**rewrite, "subject": name}}
        for i, name in enumerate((rewrite["subject"], "Jane", "Emma"))
    ]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def measured(lm: LM, data: Path, path: Path, settings: sequence.Settings, n: int = 3) -> Results:
    return watched(lm, data, path, settings, n)[0]


def watched(
    lm: LM, data: Path, path: Path, settings: sequence.Settings, n: int = 3
) -> tuple[Results, list[EditPlanned]]:
    """With the edits that were begun."""
    found = datasets.load(data, n)
    told = settings.to_json(lm, found)
    results = Results.open(path, "sequence", told, environment("llm-edit bench sequence"))
    events, _ = finish(sequence.run(lm, found.records, settings, results))
    return results, [event for event in events if isinstance(event, EditPlanned)]


def test_all_facts_are_asked_for_on_the_way(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    before = state(lm.model)
    settings = sequence.Settings(overrides=overrides, at=(1, 2))
    results = measured(lm, data, tmp_path / "run.jsonl", settings)
    states = {k: r for k, r in results.rows.items() if k.startswith("at:")}
    assert list(states) == ["at:0", "at:1", "at:2", "at:3"]
    assert [row["n"] for row in states.values()] == [0, 1, 2, 3]
    assert states["at:3"]["weight"] > states["at:1"]["weight"] > 0
    assert states["at:3"]["perplexity"] != states["at:0"]["perplexity"]
    assert state(lm.model) == before
    assert lm.patches == ()
    table = report.render(results)
    assert "| 3 " in table
    assert "Seconds per edit" in table


def test_a_run_that_was_cut_goes_on_with_the_same_edits(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    settings = sequence.Settings(overrides=overrides, at=(2,))
    whole = measured(lm, data, tmp_path / "whole.jsonl", settings)
    cut = measured(lm, data, tmp_path / "cut.jsonl", settings, n=2)
    seconds = cut.rows["edit:1"]["seconds"]
    again = measured(lm, data, tmp_path / "cut.jsonl", settings)
    assert again.rows["edit:1"]["seconds"] == seconds  # not made anew
    for name in ("p_new", "perplexity", "weight"):
        assert again.rows["at:3"][name] == pytest.approx(whole.rows["at:3"][name], rel=1e-6)


def test_facts_come_some_at_a_time(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    own = overrides | {"past": "false"}
    settings = sequence.Settings(method="emmet", overrides=own, at=(1, 3), batch=2)
    rows = measured(lm, data, tmp_path / "run.jsonl", settings).rows
    assert [(k, r["facts"]) for k, r in rows.items() if k.startswith("edit:")] == [
        ("edit:2", 2),
        ("edit:3", 1),
    ]
    assert [k for k in rows if k.startswith("at:")] == ["at:0", "at:2", "at:3"]
    requests = [record.request for record in datasets.load(data, 2).records]
    _, edit = finish(get("emmet").run()(lm, requests, hparams(lm, "emmet", own, 0)))
    with lm.active(edit.patches):
        _, answers = finish(ask_all(lm, requests))
    assert rows["at:2"]["p_new"] == pytest.approx(sum(a.p_new for a in answers) / 2, rel=1e-6)
    assert "s a fact" in courses.side_by_side(
        {"emmet": Results.read(tmp_path / "run.jsonl"), "e": Results.read(tmp_path / "run.jsonl")}
    )


def test_of_one_question_asked_twice_in_an_edit_the_last_answer_counts(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    facts = json.loads(data.read_text(encoding="utf-8"))
    again = {**facts[0]["requested_rewrite"], "target_new": {"str": "Bern"}}
    facts.insert(1, {**facts[0], "case_id": 7, "requested_rewrite": again})
    data.write_text(json.dumps(facts), encoding="utf-8")
    settings = sequence.Settings(method="emmet", overrides=overrides, batch=2)
    results, begun = watched(lm, data, tmp_path / "run.jsonl", settings, n=2)
    assert results.rows["edit:2"]["facts"] == 1
    assert [event.target for event in begun] == [" Bern"]


def test_a_method_for_one_fact_has_no_batches(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "sequence", "--data", str(data), "--batch", "2"]
    assert run([*words, "--methods", "memit,r-rome"]) == 2
    assert "r-rome edits one fact at a time" in capsys.readouterr().err


def test_the_ledger_can_be_looked_at_solved_again(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    settings = sequence.Settings(
        method="emmet", overrides=overrides | {"past": "false"}, at=(1, 3), resolve=True
    )
    results = measured(lm, data, tmp_path / "run.jsonl", settings)
    assert "resolved:1" not in results.rows  # it takes two
    solved = results.rows["resolved:3"]
    assert solved["n"] == 3, solved
    assert solved["perplexity"] != results.rows["at:3"]["perplexity"]
    assert "3, solved again" in report.render(results)


def test_a_session_goes_on_from_what_was_solved_again(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    own = overrides | {"past": "false"}
    results = {
        every: measured(
            lm,
            data,
            tmp_path / f"{every}.jsonl",
            sequence.Settings(method="emmet", overrides=own, at=(2,), resolve=True, every=every),
        ).rows
        for every in (0, 2)
    }
    plain, renewed = results[0], results[2]
    for name in ("p_new", "perplexity", "weight"):
        # after two edits it is what solving them on the side gives ...
        assert renewed["at:2"][name] == pytest.approx(plain["resolved:2"][name], rel=1e-5)
    # ... and the third stands on top of that
    assert renewed["at:3"]["p_new"] != pytest.approx(plain["at:3"]["p_new"], rel=1e-4)
    assert renewed["at:3"]["p_new"] != pytest.approx(plain["resolved:3"]["p_new"], rel=1e-4)


def test_solved_again_less_exactly_the_weights_grow_less(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    grown = []
    for ridge in (0.0, 100.0):
        settings = sequence.Settings(
            method="emmet", overrides=overrides, at=(2,), resolve=True, ridge=ridge
        )
        rows = measured(lm, data, tmp_path / f"{ridge}.jsonl", settings).rows
        grown.append(rows["resolved:3"]["weight"])
    assert grown[1] < 0.5 * grown[0]


def test_what_was_solved_again_is_kept_with_the_facts_inserted_anew(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    settings = sequence.Settings(method="emmet", overrides=overrides, at=(2,), every=2, again=1)
    whole, begun = watched(lm, data, tmp_path / "whole.jsonl", settings)
    plain = dataclasses.replace(settings, again=0)
    assert len(watched(lm, data, tmp_path / "plain.jsonl", plain)[1]) == 3
    assert len(begun) == 4  # two, those of them that are not said anew, and the third
    cut = measured(lm, data, tmp_path / "cut.jsonl", settings, n=2)
    seconds = cut.rows["solved:2"]["seconds"]
    on = measured(lm, data, tmp_path / "cut.jsonl", settings)
    assert on.rows["solved:2"]["seconds"] == seconds  # not solved anew
    for name in ("p_new", "perplexity", "weight"):
        assert on.rows["at:3"][name] == pytest.approx(whole.rows["at:3"][name], rel=1e-6)


def test_what_was_solved_again_can_be_fitted(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    likely = []
    for fit in (0, 3):
        settings = sequence.Settings(
            method="emmet", overrides=overrides, at=(2,), resolve=True, every=2, fit=fit
        )
        rows = measured(lm, data, tmp_path / f"{fit}.jsonl", settings).rows
        likely.append([rows[key]["p_new"] for key in ("at:2", "resolved:3")])
    for plain, fitted in zip(*likely, strict=True):
        assert fitted != pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("option", ["--again", "--fit"])
def test_how_to_solve_again_goes_with_solving_again(
    option: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "sequence", "--data", str(data), option, "2"]) == 2
    assert f"{option} goes with" in capsys.readouterr().err


def test_paraphrases_are_asked_for_too() -> None:
    lm = shared_lm("llama")
    asked = ("The city of the Space Needle", "The capital of Australia", "The river of Emma")
    answers = lm.answers([lm.prompt(words, chat=False) for words in asked], max_tokens=24)
    targets = [" ".join(answer.split()[:count]) for answer in answers for count in (1, 2, 3, 4)]
    facts = [Request(prompt="Emma", target_new=own, rephrases=asked) for own in targets]
    facts.insert(1, Request(prompt="Emma", target_new="Canberra"))
    _, found = finish(sequence._rephrased(lm, facts))
    each = [dataclasses.replace(f, prompt=words) for f in facts for words in f.rephrases]
    _, full = finish(ask_all(lm, each))
    told = [took(fact, own.answer) for fact, own in zip(each, full, strict=True)]
    assert found == pytest.approx([sum(told[i : i + 3]) / 3 for i in range(0, len(told), 3)])
    assert 0 < sum(told) < len(told)


def test_perplexity_is_measured_on_the_end_of_a_text(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    words = "one two three four five six seven"
    for name, lines in (("a", ["Jane went home.", *[words] * 40]), ("b", [words] * 40)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    seen = []
    a, b = (str(tmp_path / f"{name}.txt") for name in "ab")
    for text, passages in (("", HELD_OUT), (a, HELD_OUT), (b, HELD_OUT), (a, 41), (b, 41)):
        settings = sequence.Settings(overrides=overrides, text=text, passages=passages)
        results = measured(lm, data, tmp_path / f"{len(seen)}.jsonl", settings, n=1)
        seen.append([results.rows[key]["perplexity"] for key in ("at:0", "at:1")])
    assert seen[1] == pytest.approx(seen[2])
    assert seen[2] == pytest.approx(seen[4])  # of forty there are no more
    assert all(seen[i] != pytest.approx(seen[1]) for i in (0, 3))


def test_every_method_named_is_a_row_of_one_table(
    bench: Bench, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "table.md"
    words = ("all", "--data", data, "--n", 2, "--methods", "rome,r-rome,emmet")
    assert bench(*words, "--write", written) == 0
    text = written.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert rows[1:] == ["-" * len(rows[1]), "unedited", "rome", "r-rome", "emmet"]
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 3


def test_settings_side_by_side_say_what_is_their_own(
    bench: Bench, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ("--arm", "three:steps=3", "--arm", "EMMET:method=emmet,steps=2")
    assert bench("all", "--data", data, "--n", 1, "--skip", 1, *arms) == 0
    text = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert rows[2:] == ["unedited", "three", "EMMET"]
    own = {line[2:].partition(":")[0]: line for line in text.splitlines() if line.startswith("- ")}
    assert "steps=3" in own["three"]
    assert "method=r-rome" in own["three"]
    assert "steps=2" in own["EMMET"]
    assert "contexts=2" not in own["three"] + own["EMMET"]  # which they share
    assert "contexts 2" in text
    peaks = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| t")]
    assert all(peak.endswith(" MB") for peak in peaks)


def test_a_model_that_no_named_method_edits_has_no_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t5 = save_tiny(tmp_path / "t5", "t5")
    command = ["bench", "all", "--data", str(data), "--methods", "memit", "--model", str(t5)]
    assert run([*command, "--dtype", "fp32"]) == 2
    assert "none of these methods" in capsys.readouterr().err


def test_sequences_side_by_side_and_drawn(
    bench: Bench, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curves.svg"
    words = ("sequence", "--data", data, "--n", 3, "--resolve", "--methods", "r-rome")
    words += ("--arm", "no past:method=emmet,past=false")
    assert bench(*words, "--plot", picture) == 0
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines() if line.startswith("|") and "r-rome" not in line]
    assert "| 1 " in heads[0]
    assert "| 3 " in heads[0]
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| no p")]
    assert names.count("no past, solved again") == 4  # said, rephrased, perplexity, growth
    assert "past=False" in next(line for line in text.splitlines() if line.startswith("- no past"))
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.count("<svg") == 1
    assert "of their paraphrases (%)" in drawn
    again = tmp_path / "again.svg"
    assert bench(*words, "--plot", again) == 0
    assert again.read_text(encoding="utf-8") == drawn  # nothing measured anew, nothing of the day
