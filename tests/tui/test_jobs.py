"""What the screen says of the engine's work: what waits for it, what an earlier one left."""

from __future__ import annotations

from conftest import Opened
from scenes import LONG, ask, fix, reach, settle
from test_chat import screen_text, texts

LEFT = "An edit of 'gold' -> 'Au' was interrupted (process killed). Make it again if it is wanted."


async def test_an_interrupted_edit_is_told_below_what_was_said_before(opened: Opened) -> None:
    async with opened(past=True, interrupted=LEFT) as pilot:
        assert len(texts(pilot, "model")) == 2
        assert texts(pilot)[-1] == LEFT


async def test_an_undo_during_work_is_said_to_wait_for_it(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        gate = pilot.app.assistant.hold("token", 3)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        await pilot.press("f3")
        await settle(pilot, jobs=False)
        assert "answering (undo waiting for it)" in screen_text(pilot)
        await ask(pilot, wait=False)
        await pilot.press("f8", "f3")
        await settle(pilot, jobs=False)
        assert "answering (undo and redo waiting for it, +1 waiting)" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        assert "waiting" not in screen_text(pilot)
