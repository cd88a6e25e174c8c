"""What the screen says of the engine's work: what an earlier one left."""

from __future__ import annotations

from conftest import Opened
from test_chat import texts

LEFT = "An edit of 'gold' -> 'Au' was interrupted (process killed). Make it again if it is wanted."


async def test_an_interrupted_edit_is_told_below_what_was_said_before(opened: Opened) -> None:
    async with opened(past=True, interrupted=LEFT) as pilot:
        assert len(texts(pilot, "model")) == 2
        assert texts(pilot)[-1] == LEFT
