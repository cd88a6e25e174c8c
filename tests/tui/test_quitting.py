"""Leaving at once, whatever the engine does; starting before the engine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Opened
from scenes import LONG, ask, fix, reach
from terminal import on_terminal, read_until

HERE = Path(__file__).parent
SOON = 4.0  # seconds, on a busy machine; what is stuck never comes back

PROGRAM = """
import sys, threading
sys.path[:0] = [{root!r}, {here!r}]
from scripted import ScriptedAssistant
from tui.app import EditApp

def make(signal):
    made = ScriptedAssistant(signal)
    made.hold("token", 2, stuck=True)  # a kernel that never comes back
    return made

app = EditApp(make)
code = app.run()
app.assistant.close(timeout=0.2)
sys.stdout.write("LEFT")
sys.stdout.flush()
sys.exit(code)
"""


def test_quitting_does_not_wait_for_a_job_that_is_stuck() -> None:
    program = PROGRAM.format(root=str(HERE.parents[1]), here=str(HERE))
    with on_terminal(program) as (terminal, child):
        read_until(terminal, b"cpu", 30)  # loaded
        os.write(terminal, b"hello\r")
        read_until(terminal, b"answering", 30)
        asked = time.monotonic()
        os.write(terminal, b"\x11")  # Ctrl+Q
        read_until(terminal, b"LEFT", 10)
        assert child.wait(10) == 0
        assert time.monotonic() - asked < SOON


@pytest.mark.parametrize("work", ["answer", "edit"])
async def test_quitting_does_not_wait_for_the_engine(opened: Opened, work: str) -> None:
    async with opened() as pilot:
        if work == "edit":
            await ask(pilot)
        gate = pilot.app.assistant.hold("token" if work == "answer" else "step", 2, stuck=True)
        await (ask(pilot, LONG, wait=False) if work == "answer" else fix(pilot))
        await reach(pilot, gate)
        started = time.monotonic()
        await pilot.press("ctrl+q")
        assert pilot.app.return_code == 0
    assert time.monotonic() - started < SOON


def test_the_screen_is_there_before_torch() -> None:
    """Neither importing nor composing imports torch; the engine starts after the first picture."""
    program = f"""
import asyncio, sys
sys.path[:0] = [{str(HERE.parents[1])!r}, {str(HERE)!r}]
from scripted import ScriptedAssistant
from tui.app import EditApp
import tui.assistant
seen = []
class Watched(ScriptedAssistant):
    def load(self, after=None):
        strips = app.screen._compositor.render_strips()
        seen.append(any("llm-edit" in strip.text for strip in strips))
        return super().load()
app = EditApp(Watched)
async def main():
    async with app.run_test(size=(120, 36)) as pilot:
        while not seen:
            await pilot.pause(0.05)
asyncio.run(main())
app.assistant.close()
assert seen == [True], seen
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


FIRST = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
import llm_edit.chat, tui.launch, tui.options
from tui.app import EditApp
seen = []
def make(signal):
    strips = app.screen._compositor.render_strips()
    assert any("Ask something" in strip.text for strip in strips), "made before the first picture"
    seen.extend(sys.modules)
    from scripted import ScriptedAssistant
    return ScriptedAssistant(signal)
app = EditApp(make)
async def main():
    async with app.run_test(size=(120, 36)) as pilot:
        while not seen:
            await pilot.pause(0.05)
asyncio.run(main())
app.assistant.close()
print(json.dumps(seen))
"""
LATER = {
    "torch", "transformers", "numpy", "sqlite_utils", "sessions", "yaml",
    "tui.assistant", "tui.conversation", "tui.commands", "tui.batch", "tui.screens.history",
    "tui.screens.compare", "tui.screens.batch", "tui.widgets.fix_dialog", "tui.widgets.help",
}  # fmt: skip


def test_the_first_picture_waits_for_nothing_that_it_does_not_show() -> None:
    paths = json.dumps([str(HERE.parents[1]), str(HERE)])
    found = subprocess.run(
        [sys.executable, "-c", FIRST, paths], check=True, timeout=60, capture_output=True, text=True
    )
    assert LATER.isdisjoint(json.loads(found.stdout))
