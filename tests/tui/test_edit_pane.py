"""What the edit pane says of a correction that has no curve, and of a session without one."""

from __future__ import annotations

import re

import pytest
from conftest import Opened
from scenes import LONG, ask, fix, reach, settle
from test_chat import screen_text
from textual.pilot import Pilot

from tui.widgets.edit_pane import EditPane
from tui.widgets.line import Line


def title(pilot: Pilot) -> str:
    return str(pilot.app.chat.query_one(EditPane).border_title)


async def undone_then_stopped(pilot: Pilot, point: str) -> None:
    """Edit 1 is made and undone; another is stopped before its first step."""
    await ask(pilot)
    await fix(pilot)
    await settle(pilot)
    await pilot.press("f3")
    await settle(pilot)
    await ask(pilot, LONG)
    gate = pilot.app.assistant.hold(point, 1)
    await fix(pilot, "Paris")
    await reach(pilot, gate)
    await pilot.press("escape")
    await settle(pilot)


async def test_an_edit_stopped_before_its_plan_has_no_number(opened: Opened) -> None:
    async with opened() as pilot:
        await undone_then_stopped(pilot, "probe")
        assert title(pilot) == "Edit · r-rome"
        for redone in (False, True):
            if redone:
                await pilot.press("f8")
                await settle(pilot)
            shown = screen_text(pilot)
            assert "■ Stopped. Nothing was changed." in shown
            assert "Undone: the model answers as before" not in shown
            assert "It ended before its first step: there is" in shown
            assert "This method optimises nothing" not in shown


async def test_the_strip_says_it_too(opened: Opened) -> None:
    async with opened(size=(80, 24)) as pilot:
        await undone_then_stopped(pilot, "probe")
        assert "It ended before its first step" in screen_text(pilot)
        assert "Edit 1" not in screen_text(pilot)


async def test_an_edit_stopped_behind_its_plan_has_its_own_number(opened: Opened) -> None:
    async with opened() as pilot:
        await undone_then_stopped(pilot, "step")
        assert title(pilot) == "Edit 2 · r-rome · layer 6"
        assert "■ Stopped. Nothing was changed." in screen_text(pilot)


async def test_a_resumed_session_is_told_where_the_curves_of_its_edits_are(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        shown = " ".join(re.sub(r"[│╮╯]", " ", screen_text(pilot)).split())
        assert "No correction yet" not in shown
        hint = str(pilot.app.chat.query_one("#edit-hint", Line).content)
        assert hint.startswith("The next correction is drawn here as it comes.")
        assert "llm-edit replay 01j; F4 shows when they were made" in hint
        assert "● #1 Australia → Canberra" in shown


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_edits_solved_again_have_no_single_answer(
    opened: Opened, size: tuple[int, int]
) -> None:
    async with opened(size=size) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await ask(pilot, "/resolve")
        shown = screen_text(pilot)
        assert not re.search(r"→ *[│╮]", shown), "an arrow to nothing"
        if size == (120, 36):
            for name in ("Rephrased", "Neighbours kept"):
                assert re.search(f"· {name} +not measured", shown)
