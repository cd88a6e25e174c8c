"""A process that is killed in the middle of an edit loses nothing recorded."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from .conftest import Run, process
from .small import QUESTION


def test_the_next_start_says_what_was_interrupted(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    done = run(
        "edit", QUESTION, "--subject", "Australia", "--target", "Sydney", "--model", model,
        "--no-probes", "--json", *small,
    )  # fmt: skip
    kept = done.json["edit_id"]
    killed = process(
        "edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--model", model,
        "--no-probes", "--events", *small, "--hp", "steps=1000000", "--hp", "stop_loss=-1",
    )  # fmt: skip
    assert killed.stdout is not None
    for line in killed.stdout:
        if json.loads(line)["kind"] == "EditStep":
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)

    ran = run("ask", QUESTION, "--model", model, "--json")
    assert ran.code == 0
    assert (
        "An edit of 'Australia' -> 'Paris' was interrupted (process killed) in session" in ran.err
    )
    assert "nothing of it is applied" in ran.err
    assert ran.json["edits"] == [kept]
    assert "interrupted" not in run("ask", QUESTION, "--model", model).err  # said once
    shown = run("sessions", "show", ran.json["session"], "--json").json
    assert [edit["state"] for edit in shown["edits"]] == ["applied", "interrupted"]


def test_ctrl_c_stops_an_edit_with_130_and_leaves_nothing(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    stopped = process(
        "edit", QUESTION, "--subject", "Australia", "--target", "Paris", "--model", model,
        "--no-probes", "--events", *small, "--hp", "steps=1000000", "--hp", "stop_loss=-1",
    )  # fmt: skip
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if json.loads(line)["kind"] == "EditStep":
            break
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["state"] == "cancelled"
    (session,) = run("sessions", "list", "--json").json["sessions"]
    shown = run("sessions", "show", session["id"], "--json").json
    assert [edit["state"] for edit in shown["edits"]] == ["cancelled"]
    assert shown["active"] == []
