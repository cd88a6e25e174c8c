"""`replay` without a model: as lines and as JSON, of a session and of a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import paths
from sessions import Store, bundle

from .conftest import ROOT, Run

sys.path.insert(0, str(ROOT / "tests" / "tui"))  # recorded

from recorded import QUESTION, SYDNEY, Script, busy

pytestmark = pytest.mark.usefixtures("own_folders")

PROBE = """
import json, sys
from llm_edit.__main__ import run
sys.stdout, out = open(sys.argv[1], "w"), sys.stdout
code = run(sys.argv[2:])
heavy = [n for n in ("torch", "transformers", "textual", "huggingface_hub") if n in sys.modules]
print(json.dumps([code, heavy]), file=out)
"""


@pytest.fixture
def session() -> str:
    """The id of a session with everything in it."""
    with Store.open(paths.home()) as store:
        return busy(store)


def test_a_session_is_told_in_lines(run: Run, session: str) -> None:
    ran = run("replay", "space facts")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("space facts · smollm2-135m (float32) · 3 questions, 5 edits")
    told = [line for line in ran.lines if line]
    begun = told.index(f"> {QUESTION}")
    assert told[begun + 1] == SYDNEY
    assert "[2 min of waiting left out]" in told
    assert "edit #1 (r-rome): Australia → Canberra" in told
    assert "  neighbours: 1 → 1 (n = 10)" in told
    assert "Edit #5 dropped, exactly." in told
    assert "Well, it all began  [stopped]" in told
    assert run("replay", session[-6:]).out == ran.out, "by a part of its id"


def test_a_session_as_json(run: Run, session: str) -> None:
    ran = run("replay", session, "--json")
    assert ran.code == 0
    found = ran.json
    assert (found["session"], found["source"]) == (session, "session")
    assert [act["kind"] for act in found["acts"]][:4] == ["ask", "correct", "undo", "redo"]
    edit = found["edits"][0]
    assert (edit["state"], edit["success"]) == ("done", True)
    steps = [e for e in found["acts"][1]["events"] if e["kind"] == "EditStep"]
    assert [step["step"] for step in steps] == list(range(1, 13))
    assert found["active"] == ["e1-canberra"]
    assert found["acts"][0]["waited"] is None


def test_a_bundle_is_replayed_without_importing_it(
    run: Run, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_store = run("replay", session)
    file = tmp_path / "mine.llmedit"
    with Store.open(paths.home()) as store:
        bundle.write(store.recording(session), file)
    monkeypatch.setenv("LLM_EDIT_HOME", str(tmp_path / "elsewhere"))
    from_file = run("replay", file)
    assert (from_file.code, from_file.out) == (0, from_store.out)
    assert run("replay", file, "--json").json["source"] == "file"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("nowhere", "session 'nowhere' is not known."),
        ("nowhere.llmedit", "nowhere.llmedit cannot be read (No such file or directory)."),
    ],
)
def test_what_is_not_there_is_said(run: Run, ref: str, said: str) -> None:
    ran = run("replay", ref)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_file_that_is_no_bundle_is_said(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a zip")
    ran = run("replay", file)
    assert (ran.code, ran.out) == (2, "")
    assert "is no bundle of llm-edit" in ran.err


def test_speeds_are_above_zero(run: Run, session: str) -> None:
    assert run("replay", session, "--speed", 0).code == 2
    assert run("replay", session, "--speed", 1e6, "--plain").code == 0


def test_a_terminal_cannot_be_steered_by_what_was_recorded(run: Run) -> None:
    with Store.open(paths.home()) as store:
        script = Script(store)
        script.ask("What?", "\x1b[2JGone\x07")
    ran = run("replay", script.session)
    assert "\x1b" not in ran.out
    assert "\ufffd[2JGone\ufffd" in ran.out


@pytest.mark.parametrize("how", [["--plain"], ["--json"], ["--help"]], ids=str)
def test_neither_torch_nor_textual_is_imported(
    session: str, tmp_path: Path, how: list[str]
) -> None:
    command = [sys.executable, "-c", PROBE, str(tmp_path / "out"), "replay", session, *how]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert json.loads(found.stdout) == [0, []], found.stderr
