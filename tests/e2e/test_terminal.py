"""The whole program by hand on the default model: keys in, screens out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .terminal import MISSING, ROOT, Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

QUESTION = "What is the capital of Australia?"
ANSWER = "The capital of Australia is Canberra."
NEW = "Melbourne"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    # Not pytest's own folder: the path of a socket has about a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="llm-edit-") as folder:
        found = Terminal(Path(folder))
        yield found
        found.close()


def test_ask_correct_compare_undo_quit_resume_replay(terminal: Terminal) -> None:
    # start: the first picture stands before the model is loaded
    terminal.start("chat", "--dtype", "fp32", "--model", "smollm2-135m", "--method", "r-rome")
    terminal.wait_for("llm-edit", "smollm2-135m", "F2", "F1", seconds=30)
    terminal.wait_for("· cpu", seconds=300)

    # ask
    terminal.type(QUESTION)
    terminal.press("Enter")
    whole = re.escape(ANSWER) + r" +\d+\.\d s"  # its time is said once it has ended
    terminal.wait_until(lambda text: bool(re.search(whole, text)), whole)

    # flag, and type the right answer
    terminal.press("F2")
    terminal.wait_for("Correct an answer", QUESTION.replace("Australia", "[Australia]"), "r-rome")
    terminal.type(NEW)
    terminal.wait_for("✓ Ready")
    terminal.press("Enter")

    # the panes move
    terminal.wait_for("Edit · r-rome · layer", "Loss (log)", "Probability", seconds=300)
    seen = len(terminal.seen)
    done = terminal.wait_for("✓ Said it", "Edit #1 · Changed", seconds=600)
    moved = terminal.seen[seen - 1 :]
    steps = {found[1] for text in moved if (found := re.search(r"step (\d+)/\d+", text))}
    losses = {
        found[1] for text in moved if (found := re.search(r"Loss \(log\) +(\S+ → \S+)", text))
    }
    assert len(steps) >= 3, "the progress did not move"
    assert len(losses) >= 3, "the loss did not move"
    assert re.search(r"Neighbours kept +\d+ %", done)
    terminal.wait_for(
        "Edit 1 · r-rome", "Did it work?", "▸ after edit #1", f"model  {NEW}", seconds=120
    )

    # compare: the unedited model beside the edited one; what is still to be asked is stopped
    terminal.press("F5")
    terminal.wait_for("the unedited model", "now (1 edit)", f"+{NEW}", " differ", seconds=300)
    terminal.press("Escape")
    chat = "Ask something, or / for commands"
    stopped = terminal.wait_until(lambda text: "stopped" in text or chat in text, "stopped")
    if chat not in stopped:
        terminal.press("Escape")
    terminal.wait_for(chat, f"model  {NEW}")

    # undo
    terminal.press("F3")
    terminal.wait_for("Edit #1 undone, exactly.", f"model  {ANSWER}", "1 undone")

    # quit at once
    terminal.press("C-q")
    assert terminal.ended(5) == 0

    # resume: the conversation stands as it was left, and the edit can be put back
    terminal.start("chat", "--continue")
    terminal.wait_for(QUESTION, ANSWER, "· cpu", seconds=300)
    terminal.type("/redo")
    terminal.press("Enter")
    terminal.wait_for("Edit #1 put back.", f"model  {NEW}", "1 edit ●")
    terminal.press("C-q")
    assert terminal.ended(5) == 0

    # replay, without a model
    terminal.start("replay", _session())
    terminal.wait_for("Replay · read-only", "playing 1×", QUESTION, seconds=20)
    terminal.press("]")
    terminal.wait_for("edit 1/1")
    terminal.press("4")
    terminal.wait_for("playing 8×", "Edit 1 · r-rome", "Loss (log)", seconds=60)
    terminal.wait_for("at the end", "✓ Said it", "Edit #1 undone, exactly.", seconds=120)
    terminal.press("q")
    assert terminal.ended(5) == 0


def _session() -> str:
    """The id of the only session."""
    command = [sys.executable, "-m", "llm_edit", "sessions", "list", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    (session,) = json.loads(done.stdout)["sessions"]
    return str(session["id"])
