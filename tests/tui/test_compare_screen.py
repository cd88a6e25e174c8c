"""Compare: its keys, on a scripted assistant."""

from __future__ import annotations

import pytest
from conftest import Opened
from scenes import ask, comparison, play, reach, write
from test_chat import screen_text
from test_history_screen import notices, press
from textual.pilot import Pilot
from textual.widgets import Input, Select

from tui.screens.compare import CompareScreen
from tui.widgets.comparison_rows import ComparisonRows
from tui.widgets.next_tokens import NextTokens


def compared(pilot: Pilot) -> list[tuple]:
    """The comparisons that were asked for."""
    return [call[1:] for call in pilot.app.assistant.calls if call[0] == "compare"]


async def test_two_states_side_by_side_with_marked_words(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await comparison(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)
        assert compared(pilot) == [("unedited", "now", ())]
        text = screen_text(pilot)
        assert "−Sydney." in text
        assert "+Canberra" in text
        assert "= same" in text
        assert "2 of 4 differ" in text
        assert "the unedited model" in text
        assert "now (1 edit)" in text
        assert "[b]seven[/b]" in text, "never read as markup"


async def test_the_next_tokens_follow_the_cursor(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await comparison(pilot)
        text = screen_text(pilot)
        assert "“The”" in text
        assert "50.0 %" in text
        assert "+“<|im_end" in text, "a token that is not among the ten of A"
        await press(pilot, "down", "down")
        shown = pilot.app.screen.query_one(NextTokens).row
        assert shown is not None
        assert shown.prompt.kind == "neighbour"


async def test_a_prompt_of_yours_is_asked_of_both_and_taken_away(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await comparison(pilot)
        await press(pilot, "slash")
        write(pilot, "Who was Emma?")
        await press(pilot, "enter")
        assert compared(pilot)[-1] == ("unedited", "now", ("Who was Emma?",))
        rows = pilot.app.screen.query_one(ComparisonRows)
        assert rows.has_focus
        assert [r.prompt.kind for r in rows.rows][-1] == "free"
        await press(pilot, "delete")
        assert "Only a prompt that was typed" in notices(pilot)[-1]
        await press(pilot, "end", "delete")
        assert compared(pilot)[-1] == ("unedited", "now", ())


async def test_states_are_picked_and_swapped(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await comparison(pilot)
        await press(pilot, "a", "down", "enter")
        assert compared(pilot)[-1] == ("#1", "now", ())
        assert "after edit #1: Australia → Canberra" in screen_text(pilot)
        await press(pilot, "s")
        assert compared(pilot)[-1] == ("now", "#1", ())
        await press(pilot, "b", "home", "enter")
        assert compared(pilot)[-1] == ("now", "unedited", ())
        values = [select.value for select in pilot.app.screen.query(Select)]
        assert values == ["now", "unedited"]


async def test_rows_come_one_after_the_other_and_escape_stops(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        gate = pilot.app.assistant.hold("compare", 4)
        await pilot.press("f5")
        await reach(pilot, gate)
        assert "1 of 1 differ · 3 to go" in screen_text(pilot)
        await press(pilot, "escape")
        assert "2 not asked: stopped" in screen_text(pilot)
        assert isinstance(pilot.app.screen, CompareScreen)
        await press(pilot, "r")
        assert "2 of 4 differ" in screen_text(pilot)
        await press(pilot, "escape")
        assert pilot.app.screen is pilot.app.chat


async def test_without_edits_there_is_something_to_do(opened: Opened) -> None:
    async with opened() as pilot:
        await press(pilot, "f5")
        assert "no edit tells them apart" in screen_text(pilot)
        await press(pilot, "slash")
        write(pilot, "Who was Emma?")
        await press(pilot, "enter")
        assert "A and B are the same state" in screen_text(pilot)


async def test_an_unknown_state_is_said(opened: Opened, monkeypatch) -> None:
    from scripted import ScriptedAssistant

    from engine.errors import UnknownName

    def broken(self, ref: str):  # type: ignore[no-untyped-def]
        raise UnknownName("state", ref, ("unedited", "now"))

    async with opened() as pilot:
        monkeypatch.setattr(ScriptedAssistant, "_state", broken)
        await ask(pilot, "/compare #7")
        assert any("#7" in notice or "state" in notice for notice in notices(pilot))
        assert isinstance(pilot.app.screen, CompareScreen)


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_tokens_take_the_rows_place_where_there_is_no_room(
    opened: Opened, size: tuple[int, int]
) -> None:
    async with opened(size, past=True) as pilot:
        await comparison(pilot)
        screen = pilot.app.screen
        assert not screen.query_one(NextTokens).display
        await press(pilot, "t")
        assert screen.query_one(NextTokens).display
        assert not screen.query_one(ComparisonRows).display
        assert "50.0 %" in screen_text(pilot)
        await press(pilot, "down", "down")
        shown = screen.query_one(NextTokens).row
        assert shown is not None
        assert shown.prompt.kind == "neighbour"
        await press(pilot, "escape")
        assert screen.query_one(ComparisonRows).display
        await press(pilot, "escape")
        assert pilot.app.screen is pilot.app.chat


async def test_one_column_terminals_have_a_line_of_a_above_a_line_of_b(opened: Opened) -> None:
    async with opened((50, 20), past=True) as pilot:
        await comparison(pilot)
        text = screen_text(pilot)
        assert "A −The −capital −of −Australia −is" in text
        assert "B +Canberra" in text


async def test_the_field_is_left_with_escape(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await comparison(pilot)
        await press(pilot, "slash")
        assert isinstance(pilot.app.focused, Input)
        await press(pilot, "escape")
        assert pilot.app.screen.query_one(ComparisonRows).has_focus


async def test_a_scrollbar_takes_no_room_from_the_rows() -> None:
    drawn = {}
    for height in (20, 36):
        async with play("comparison", (60, height)) as app:
            rows = app.screen.query_one(ComparisonRows)
            texts = [str(rows.get_option_at_index(i).prompt) for i in range(rows.option_count)]
            drawn[rows.show_vertical_scrollbar] = texts
    assert drawn[True] == drawn[False]
