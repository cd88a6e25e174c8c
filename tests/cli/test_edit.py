"""`edit`, `ask`, `undo` and `redo` on a tiny model: what is printed, kept and applied again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import config
from engine.errors import OutOfMemory
from engine.requests import read_facts
from llm_edit import edit

from .conftest import Run
from .small import QUESTION, edit_two, hparams

FIELDS = {
    "session", "edit_id", "method", "model", "subject", "prompt", "target", "before", "after",
    "success", "rephrases", "neighbours", "perplexity", "layers", "seconds", "steps", "losses",
    "versions",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("own_folders")


def test_edit_json_has_every_field(run: Run, model: Path, small: tuple[object, ...]) -> None:
    ran = run(
        "edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--model", model,
        "--rephrase", "Which city is the capital of Australia?",
        "--neighbour", "What is the capital of France?", "--json", *small,
    )  # fmt: skip
    assert ran.code == 1, ran.err  # a tiny random model does not learn Paris in three steps
    row = ran.json
    assert set(row) >= FIELDS
    assert (row["subject"], row["target"], row["method"]) == ("Australia", "Paris", "r-rome")
    assert row["model"] == str(model)
    assert set(row["before"]) == set(row["after"]) == {"answer", "p_new", "p_old"}
    assert row["rephrases"]["n"] == 1
    assert row["neighbours"]["n"] > 1  # the one given, and facts about other things
    assert 0 <= row["neighbours"]["kept"] <= row["neighbours"]["n"]
    assert len(row["losses"]) == row["steps"] == 3
    assert set(row["layers"][0]) >= {"site", "rank", "norm_ratio"}
    assert row["layers"][0]["rank"] == 1
    assert {"total", "setup", "optimise", "solve", "probes"} <= set(row["seconds"])
    assert {"torch", "transformers", "python"} <= set(row["versions"])


def test_the_verbose_log_shows_what_a_researcher_looks_for(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    ran = run(
        "edit", "The capital of Australia is", "--subject", "Australia", "--target", "Paris",
        "--model", model, "--verbose", *small,
    )  # fmt: skip
    for part in (
        "context 1: ", "context 2: ", "subject: 'Australia', last token", "at position",
        "model.layers.0.mlp.down_proj", "step  1/3  loss", "nll", "kl", "decay", "P(new)", "‖δ‖",
        "value norm before", "value norm after", "denominator k*ᵀC⁻¹k*", "‖Δ‖/‖W‖",
        "optimise", "before: ", "after: ", "peak memory",
    ):  # fmt: skip
        assert part in ran.err, part
    assert "step" not in ran.out


def test_events_are_json_lines_that_read_back(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    from engine.events import EditStep, JobEnded, from_json

    ran = run("edit", QUESTION, "--target", "Paris", "--model", model, "--events", *small)
    events = [from_json(json.loads(line)) for line in ran.lines]
    assert [e.seq for e in events] == list(range(len(events)))
    assert sum(isinstance(e, EditStep) for e in events) == 3
    assert isinstance(events[-1], JobEnded)


def test_an_edit_is_applied_by_ask_and_undone_without_a_model(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    def answer() -> tuple[str, list[str]]:
        ran = run("ask", QUESTION, "--model", model, "--json", "--dtype", "fp32")
        assert ran.code == 0, ran.err
        return ran.json["answer"], ran.json["edits"]

    first, none = answer()
    assert none == []
    edited = run(
        "edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--model", model,
        "--no-probes", "--json", *small, "--hp", "clamp=60", "--hp", "relative_lr=10",
    )  # fmt: skip
    row = edited.json
    changed, active = answer()
    assert active == [row["edit_id"]]
    assert changed != first
    assert changed.startswith(row["after"]["answer"])  # that one stops after 64 tokens

    undone = run("undo", "--json")
    assert (undone.code, undone.json["edits"], undone.json["active"]) == (0, [row["edit_id"]], [])
    assert answer() == (first, [])
    redone = run("redo", "--json")
    assert redone.json["active"] == [row["edit_id"]]
    assert answer() == (changed, active)
    dropped = run("undo", "--edit", row["edit_id"][:8], "--json")
    assert dropped.json["action"] == "drop"
    assert answer() == (first, [])


def test_a_second_edit_of_a_question_supersedes_the_first(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    edit = ("edit", QUESTION, "--subject", "Australia", "--model", model, "--no-probes", *small)
    first = run(*edit, "--target", "Paris", "--json").json["edit_id"]
    told = run(*edit, "--target", "Emma").out
    assert "It supersedes edit #1 (Australia → Paris)" in told
    shown = run("sessions", "show", run("sessions", "list", "--json").json["sessions"][0]["id"])
    assert "1  superseded by #2  r-rome  Australia → Paris" in shown.out
    second = run("undo", "--json").json
    assert (second["active"], second["superseded"]) == ([first], {})
    redone = run("redo", "--json").json
    assert redone["active"] == redone["edits"] == second["edits"]
    assert redone["superseded"] == {first: redone["edits"][0]}
    run("undo")
    assert "edit #1 (Australia → Paris) is superseded by #2" in run("redo").out


def test_facts_from_a_file(
    run: Run, model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    facts = tmp_path / "facts.jsonl"
    lines = [
        {"prompt": QUESTION, "target_new": "Paris", "subject": "Australia", "chat": True},
        {"prompt": "The Space Needle is in", "target_new": "Rome", "subject": "Space Needle"},
    ]
    facts.write_text("\n\n".join(json.dumps(line) for line in lines))
    ran = run("edit", "--file", facts, "--model", model, "--no-probes", "--json", *small)
    assert ran.code == 1
    assert (ran.json["n"], ran.json["succeeded"]) == (2, 0)
    assert [row["target"] for row in ran.json["edits"]] == ["Paris", "Rome"]
    assert run("sessions", "list", "--json").json["sessions"][0]["edits"] == 2


def test_a_method_for_many_makes_one_edit_of_a_file(run: Run, model: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    lines = [
        {"prompt": QUESTION, "target_new": "Paris", "subject": "Australia", "chat": True},
        {"prompt": "The Space Needle is in", "target_new": "Rome", "subject": "Space Needle"},
    ]
    facts.write_text("\n".join(json.dumps(line) for line in lines))
    own = for_many(tmp_path)
    common = ("edit", "--file", facts, "--model", model, "--no-probes", "--method", "memit")
    ran = run(*common, "--json", *own)
    assert ran.code == 1, ran.err
    (row,) = ran.json["edits"]
    assert (ran.json["n"], ran.json["succeeded"]) == (2, 0)
    assert [fact["target"] for fact in row["facts"]] == ["Paris", "Rome"]
    assert row["prompt"].startswith("2 facts: ")
    assert run("sessions", "list", "--json").json["sessions"][0]["edits"] == 1
    assert "2 facts: " in run("undo").out
    told = run(*common, *own)
    assert "not taken: 'The Space Needle is in' -> 'Rome'" in told.out
    assert "0 of 2 facts changed" in told.out
    assert run("sessions", "search", "Needle", "--json").code == 0
    apart = run(*common, "--one-by-one", "--json", *own)
    assert len(apart.json["edits"]) == 2


def for_many(tmp_path: Path) -> list[str]:
    """Small settings of a method for many facts."""
    known = {k: v for k, v in hparams(tmp_path).items() if k != "both"}
    return ["--dtype", "fp32", *(part for k, v in known.items() for part in ("--hp", f"{k}={v}"))]


def test_edits_solved_again_are_one_that_undo_takes_off(
    run: Run, model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    edit_two(run, model, small)
    solved = run(
        "resolve",
        "--model",
        model,
        "--json",
        "--hp",
        f"text={tmp_path / 'text.txt'}",
        "--hp",
        "tokens=2000",
    )
    assert solved.code == 1, solved.err  # a tiny random model did not learn Paris
    row = solved.json
    assert (row["method"], len(row["facts"]), len(row["supersedes"])) == ("resolve", 2, 2)
    replayed = run("replay", row["session"], "--execute")
    assert replayed.code == 0, replayed.out
    assert "edit #3 (resolve): " in replayed.out
    facts = tmp_path / "facts.jsonl"
    run("export", row["session"], "--format", "jsonl", "--out", facts)
    assert [fact.method for fact in read_facts(facts)] == ["r-rome", "r-rome"]
    assert run("undo").code == 0
    again = run("redo", "--json").json
    assert again["active"] == [row["edit_id"]]
    assert sorted(again["superseded"]) == sorted(row["supersedes"])


def test_facts_that_resolve_leaves_unsaid_can_be_inserted_anew(
    run: Run, model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    edit_two(run, model, small)
    common = ("resolve", "--model", model, "--json", "--hp", f"text={tmp_path / 'text.txt'}",
              "--hp", "tokens=2000")  # fmt: skip
    solved = run(*common)
    assert "/resolve 2, or llm-edit resolve --again 2." in solved.json["verdict"]
    assert solved.json["verdict"].endswith("/resolve fit, or llm-edit resolve --fit 100.")
    assert "unknown method" in run(*common, "--again", 1, "--hp", "method=none-such").err
    own = config.own_file("emmet", model.name)
    own.parent.mkdir(parents=True)
    lines = [f"{key}: {value}" for key, value in hparams(tmp_path).items()]
    own.write_text("\n".join(["layer: 1", *lines]), encoding="utf-8")
    anew = run(*common, "--again", 1, "--hp", "method=emmet")  # one edit of two facts is enough
    assert anew.code == 1, anew.err
    row = anew.json
    assert (len(row["facts"]), row["supersedes"]) == (2, [solved.json["edit_id"]])
    assert "/resolve 2" not in row["verdict"]
    fitted = run(*common, "--fit", 3)
    assert len(fitted.json["facts"]) == 2, fitted.err
    assert "/resolve fit" not in fitted.json["verdict"]
    replayed = run("replay", row["session"], "--execute")
    assert replayed.code == 0, replayed.out


def test_an_edit_that_takes_exits_0(run: Run, model: Path, small: tuple[object, ...]) -> None:
    """The edited token is the last one: even a random model then says what it should."""
    ran = run(
        "edit", "We all know Emma", "--subject", "Emma", "--target", "Australia",
        "--model", model, "--no-probes", *small,
        "--hp", "layer=1", "--hp", "steps=60", "--hp", "clamp=60", "--hp", "kl=0",
        "--hp", "decay=0",
    )  # fmt: skip
    assert ran.code == 0, ran.out
    assert ran.lines[0] == "'We all know Emma' -> 'Australia'"
    assert any(line.startswith("after: Australia") for line in ran.lines)


def test_the_same_model_by_another_path_finds_its_session(
    run: Run, model: Path, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ask", QUESTION, "--model", model)
    monkeypatch.chdir(model.parent)
    run("ask", QUESTION, "--model", f"./{model.name}")
    (session,) = run("sessions", "list", "--json").json["sessions"]
    assert session["messages"] == 4


def test_ask_reads_stdin_and_continues_statements(run: Run, model: Path) -> None:
    ran = run("ask", "-", "--model", model, stdin=f"{QUESTION}\n")
    assert ran.code == 0
    assert ran.out.strip()
    statement = run("ask", "The capital of", "--statement", "--model", model, "--max-tokens", 3)
    assert statement.code == 0
    assert statement.err.endswith("cut off at the token limit; --max-tokens sets it.\n")
    # A continuation is no part of the conversation.
    assert run("sessions", "list", "--json").json["sessions"][0]["messages"] == 2


@pytest.mark.parametrize(
    ("ending", "code"), [(KeyboardInterrupt(), 130), (OutOfMemory("no memory is left."), 3)]
)
def test_facts_are_told_as_they_are_made_and_an_end_in_between_says_what_is_in_force(
    run: Run,
    model: Path,
    small: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: BaseException,
    code: int,
) -> None:
    path = tmp_path / "facts.jsonl"
    asked = ("The capital of Australia is", "The Space Needle is in", "The tower is in")
    path.write_text("\n".join(json.dumps({"prompt": p, "target_new": "Rome"}) for p in asked))
    real, begun = edit.begin, []

    def stopped(*given: Any, **more: Any) -> Any:
        begun.append(given)
        if len(begun) == 2:
            raise ending
        return real(*given, **more)

    monkeypatch.setattr(edit, "begin", stopped)
    command = ("edit", "--file", path, "--model", model, *small)
    ran = run(*command)
    assert (ran.code, len(begun)) == (code, 2)
    assert [line[:5] for line in ran.lines].count("edit ") == 1, "what was made is said"
    begun.clear()
    found = run(*command, "--json")
    assert (found.code, found.json["interrupted"], found.json["n"]) == (code, True, 1)
    assert found.json["edits"][0]["edit_id"]


def test_what_the_model_says_already_is_said_of_a_file_too(
    run: Run, model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    prompts = ("The Space Needle is in", "The capital of Australia is", "The tower is in")
    facts = []
    for prompt in prompts[:2]:
        ran = run("ask", prompt, "--statement", "--model", model, "--dtype", "fp32")
        facts.append({"prompt": prompt, "target_new": ran.out.split()[0], "subject": prompt[4:9]})
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(map(json.dumps, facts)))
    command = ("edit", "--file", path, "--model", model)
    ran = run(*command, *small)
    assert (ran.code, ran.out.count("nothing was edited")) == (0, 2)
    command = (*command, "--method", "memit", *for_many(tmp_path))
    ran = run(*command)
    assert (ran.code, ran.out.count("2 facts: nothing was edited")) == (0, 1)

    facts.append({"prompt": prompts[2], "target_new": "Rome", "subject": "tower"})
    path.write_text("\n".join(map(json.dumps, facts)))
    ran = run(*command)
    assert (ran.out.count("already so: "), ran.out.count("not taken: ")) == (2, 1)
    run("undo", "--model", model)
    found = run(*command, "--json").json
    (row,) = found["edits"]
    assert [fact["already"] for fact in row["facts"]] == [False, True, True]
    assert (found["n"], found["succeeded"]) == (3, 2)
