"""`replay --execute`: a session done again on its model, on another, and where it drifts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import paths
from engine.lm import LM
from sessions import Recording, Store, Told, bundle

from .conftest import Run, one_line
from .small import LARGE, QUESTION, hparams

pytestmark = pytest.mark.usefixtures("own_folders")

LINES = f"{QUESTION}\n/fix Australia => Paris\n{QUESTION}\n/undo\n/redo\nWhere is Emma?\n"


@pytest.fixture
def session(run: Run, model: Path, small: tuple[object, ...]) -> str:
    """The id of a session with a correction, undone and put back."""
    large = (item for name, value in LARGE.items() for item in ("--hp", f"{name}={value}"))
    ran = run("chat", "--plain", "--context", "--model", model, *small, *large, stdin=LINES)
    assert "Put back: edit #1" in ran.out, ran.err
    return str(run("sessions", "list", "--json").json["sessions"][0]["id"])


def recorded(session: str) -> Recording:
    with Store.open(paths.home()) as store:
        return store.recording(session)


def count(session: str) -> int:
    found = recorded(session)
    return len(found.nodes) + len(found.events)


def test_on_its_own_model_everything_comes_out_as_recorded(run: Run, session: str) -> None:
    before = count(session)
    ran = run("replay", session, "--execute")
    assert ran.code == 0, ran.out
    assert "edit #1 (r-rome): Australia → Paris\n  identical" in ran.out
    assert ran.lines[-1].startswith("6 acts: 6 identical (")
    assert "differs:" not in ran.err
    assert count(session) == before, "nothing is written"


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--dtype", "fp7"), "unknown dtype 'fp7'."), (("--device", "gpu"), "unknown device 'gpu'.")],
)
def test_what_cannot_be_is_said_before_loading(
    run: Run, session: str, option: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LM, "load", None)
    ran = run("replay", session, "--execute", *option)
    assert (ran.code, said in one_line(ran.err)) == (2, True)


def test_the_report_as_json(run: Run, session: str) -> None:
    ran = run("replay", session, "--execute", "--json", "--tolerance", 0)
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["session"], found["drifted"], found["same_model"]) == (session, False, True)
    assert found["counts"]["identical"] == len(found["acts"]) == 6
    assert [act["kind"] for act in found["acts"]] == [
        "ask", "correct", "ask", "undo", "redo", "ask",
    ]  # fmt: skip
    assert found["acts"][1]["compared"] > 50
    assert found["differences"] == []


def test_a_number_that_drifts_is_named(run: Run, session: str, tmp_path: Path) -> None:
    """The second step's loss is falsified in a bundle, and an answer too."""
    found = recorded(session)
    events = [_falsified(told) for told in found.events]
    last = max(found.messages.values(), key=lambda message: message.created)
    messages = {**found.messages, last.node: dataclasses.replace(last, text="Somewhere.")}
    file = tmp_path / "drifted.llmedit"
    bundle.write(dataclasses.replace(found, events=tuple(events), messages=messages), file)
    ran = run("replay", file, "--execute", "--json")
    assert ran.code == 1
    acts = ran.json["acts"]
    assert [act["state"] for act in acts].count("drifted") == 2
    (loss,) = acts[1]["drifts"]
    assert loss["where"] == "steps 2 loss"
    assert loss["recorded"] == 99.0
    (answer,) = acts[-1]["drifts"]
    assert (answer["where"], answer["recorded"]) == ("answer", "Somewhere.")
    assert answer["size"] is None, "words have no distance"
    told = run("replay", file, "--execute", "--tolerance", 100)
    assert told.code == 1, "words must be the same"
    assert "  DRIFTED\n  - answer: Somewhere. → " in told.out
    assert "edit #1 (r-rome): Australia → Paris\n  within tolerance: at most " in told.out


def _falsified(told: Told) -> Told:
    event = dict(told.event)
    if event["kind"] == "EditStep" and event["step"] == 2:
        event["loss"] = 99.0
    return dataclasses.replace(told, event=event)


def test_on_another_model_the_edits_are_computed_anew(
    run: Run, session: str, tiny_folder: Callable[..., Path]
) -> None:
    other = tiny_folder("qwen2", chat=True)
    ran = run("replay", session, "--execute", "--model", other, "--json")
    assert ran.code == 1
    assert "differs: model: " in ran.err
    assert "This is another model: the recorded patches do not fit it" in ran.err
    found = ran.json
    assert found["same_model"] is False
    assert [d["where"] for d in found["differences"]] == ["model"]
    assert found["acts"][1]["state"] == "drifted"
    assert all(act["with_recorded_patches"] is None for act in found["acts"])


def test_an_edit_of_many_facts_is_made_again_as_one(run: Run, model: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    lines = [
        {"prompt": QUESTION, "target_new": "Paris", "subject": "Australia", "chat": True},
        {"prompt": "The Space Needle is in", "target_new": "Rome", "subject": "Space Needle"},
    ]
    facts.write_text("\n".join(json.dumps(line) for line in lines))
    known = {k: v for k, v in hparams(tmp_path).items() if k != "both"}
    own = [part for k, v in known.items() for part in ("--hp", f"{k}={v}")]
    run("edit", "--file", facts, "--model", model, "--no-probes", "--method", "memit",
        "--dtype", "fp32", *own)  # fmt: skip
    (session,) = run("sessions", "list", "--json").json["sessions"]
    ran = run("replay", session["id"], "--execute")
    assert ran.code == 0, ran.out
    assert ran.lines[0].startswith("edit #1 (memit): 2 facts: ")
    assert ran.lines[1] == "  identical"


def test_an_edit_that_cannot_be_made_again_takes_what_follows_from_it_along(
    run: Run, session: str, tmp_path: Path
) -> None:
    found = recorded(session)
    (edit,) = found.edits
    plans = [_with_hparams(told, {**edit.hparams, "layer": 99}) for told in found.events]
    file = tmp_path / "deep.llmedit"
    bundle.write(dataclasses.replace(found, events=tuple(plans)), file)
    ran = run("replay", file, "--execute", "--json")
    assert ran.code == 1
    states = [act["state"] for act in ran.json["acts"]]
    assert states == ["identical", "failed", "skipped", "identical", "skipped", "skipped"]
    assert "must be a layer from 0 to" in ran.json["acts"][1]["why"]
    assert ran.json["acts"][2]["why"] == "edit #1 could not be made again"


def _with_hparams(told: Told, hparams: dict[str, object]) -> Told:
    event = dict(told.event)
    if event["kind"] == "EditPlanned":
        event["hparams"] = hparams
    return dataclasses.replace(told, event=event)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tolerance", "1"], "--tolerance needs --execute."),
        (["--model", "gpt2"], "--model needs --execute."),
        (["--execute", "--speed", "2"], "--execute excludes --speed."),
        (["--execute", "--tolerance", "-1"], "--tolerance"),
    ],
)
def test_options_that_mean_nothing_are_refused(run: Run, arguments: list[str], said: str) -> None:
    ran = run("replay", "nothing", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_model_that_is_gone_is_said(run: Run, session: str, model: Path, tmp_path: Path) -> None:
    found = recorded(session)
    gone = dataclasses.replace(
        found.session.model, name=str(tmp_path / "gone"), source=str(tmp_path / "gone")
    )
    file = tmp_path / "other.llmedit"
    bundle.write(
        dataclasses.replace(found, session=dataclasses.replace(found.session, model=gone)), file
    )
    ran = run("replay", file, "--execute")
    assert ran.code == 3
    assert "cannot be loaded" in ran.err
    assert ran.err.strip().endswith("Name one that can: --model.")
    assert run("replay", file, "--execute", "--model", model).code == 0
