"""History: the keys of the timeline and of the sessions, on a scripted assistant."""

from __future__ import annotations

import pytest
from conftest import Opened
from scenes import LONG, QUESTION, ask, fix, history, settle, write
from scripted import ANSWERS
from test_chat import screen_text, texts
from textual.pilot import Pilot
from textual.widgets import Input

from tui.screens.compare import CompareScreen
from tui.screens.history import HistoryScreen
from tui.widgets.asking import AskLine, Confirm
from tui.widgets.key_bar import KeyBar
from tui.widgets.session_list import SessionList
from tui.widgets.timeline_list import TimelineList


def lines(pilot: Pilot) -> list[str]:
    """The timeline as it is drawn, blanks at the ends cut."""
    found = pilot.app.screen_stack[1].query_one(TimelineList)
    return [str(found.get_option_at_index(i).prompt).rstrip() for i in range(found.option_count)]


def notices(pilot: Pilot) -> list[str]:
    return [n.message for n in pilot.app._notifications]


async def press(pilot: Pilot, *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()
    await settle(pilot)


async def test_the_timeline_shows_what_was_said_and_edited(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        assert isinstance(pilot.app.screen, HistoryScreen)
        shown = lines(pilot)
        assert [line.split("  ")[0].strip() for line in shown] == [
            "you", "╎ model", "◆ #1 r-rome", "model", "you", "model",
        ]  # fmt: skip
        assert "✓ took" in shown[2]
        assert shown[-1].endswith("◂ here")


async def test_an_undone_edit_is_struck_and_says_so(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await press(pilot, "f3", "f4")
        (edit,) = [line for line in lines(pilot) if "◆" in line]
        assert "undone (took)" in edit
        timeline = pilot.app.screen.query_one(TimelineList)
        prompt = timeline.get_option_at_index(1).prompt
        assert any(getattr(span.style, "strike", False) for span in prompt.spans)
        assert any(line.startswith("↶ undid #1") for line in lines(pilot))


async def test_a_failed_edit_is_marked_in_words(opened: Opened) -> None:
    async with opened(succeed=False) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await press(pilot, "f4")
        assert any("✗ did not take" in line for line in lines(pilot))


async def test_enter_shows_the_message_in_the_conversation(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home", "enter")
        assert pilot.app.screen is pilot.app.chat
        transcript = pilot.app.chat.transcript
        assert transcript.has_focus
        (chosen,) = [v for v in transcript._ordered() if v.has_class("-chosen")]
        assert chosen.entry.text == QUESTION


async def test_what_is_not_in_the_conversation_cannot_be_shown_there(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home", "down", "enter")
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert "another branch" in notices(pilot)[-1]


async def test_undo_to_here_asks_first(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home", "u")
        assert isinstance(pilot.app.screen, Confirm)
        text = " ".join(screen_text(pilot).split())
        assert "Undo 1 edit (#1)" in text
        assert "3 later messages are kept" in text
        assert "restored exactly" in text
        await press(pilot, "n")
        assert not any(call[0] == "undo_to" for call in pilot.app.assistant.calls)
        await press(pilot, "u")
        await press(pilot, "y")
        assert ("undo_to", "t0-q") in pilot.app.assistant.calls
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert any("undone (took)" in line for line in lines(pilot)), "drawn anew"
        await press(pilot, "escape")
        assert ANSWERS[QUESTION] in texts(pilot, "model")


async def test_nothing_to_undo_is_said(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "end", "u")
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert "No edit was made since" in notices(pilot)[-1]


async def test_y_puts_the_edit_back(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "f3")
        assert "undone" in lines(pilot)[1]
        await press(pilot, "y")
        assert any("✓ took" in line for line in lines(pilot))
        assert "put back" in notices(pilot)[-1]


async def test_b_branches_and_the_conversation_is_drawn_anew(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home", "down", "down", "b")
        assert "begins at a question or an answer" in notices(pilot)[-1]
        await press(pilot, "down", "b")
        assert ("branch", "e1-a") in pilot.app.assistant.calls
        assert len(lines(pilot)) == 4
        await press(pilot, "escape")
        assert texts(pilot, "user") == [QUESTION]
        assert "On a branch from here on" in texts(pilot, "note")[-1]


async def test_d_compares_a_place_with_now(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home", "d")
        assert isinstance(pilot.app.screen, CompareScreen)
        assert ("compare", "@01J/t0-q", "now", ()) in pilot.app.assistant.calls
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_slash_searches_all_sessions_and_escape_ends_it(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "slash", *"danube")
        assert ("search", "danube") in pilot.app.assistant.calls
        assert "answered: The Danube" in screen_text(pilot)
        assert "How long is the Danube?" in screen_text(pilot), "its timeline beside it"
        await press(pilot, "enter", "escape")
        assert "rivers and lakes" in screen_text(pilot)
        assert pilot.app.screen.query_one(Input).value == ""
        await press(pilot, "slash", *"zzz")
        assert "nothing found" in screen_text(pilot)


async def test_another_session_is_looked_at_without_opening_it(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "tab", "down")
        assert "How long is the Danube?" in screen_text(pilot)
        assert "o opens it" in screen_text(pilot)
        await press(pilot, "enter", "b")
        assert "another session" in notices(pilot)[-1]
        assert not any(call[0] == "branch" for call in pilot.app.assistant.calls)


async def test_o_opens_a_session_of_the_model(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "tab", "down", "o")
        assert pilot.app.screen is pilot.app.chat
        assert texts(pilot, "user") == ["How long?"]
        assert texts(pilot, "note") == ["This is session rivers and lakes now: 1 turn, no edits "
                                        "in force."]  # fmt: skip
        assert pilot.app.chat.edit is None


async def test_of_another_model_the_command_is_said(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "tab", "end", "o")
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert "llm-edit chat --session 01b opens it" in notices(pilot)[-1]
        assert texts(pilot, "user") == [QUESTION, LONG]


async def test_r_renames(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "tab", "down", "r")
        assert isinstance(pilot.app.screen, AskLine)
        await press(pilot, "ctrl+u", *"seas", "enter")
        assert pilot.app.assistant.archive.titles == {"01A": "seas"}
        assert "seas" in screen_text(pilot)
        await press(pilot, "up", "r", "escape")
        assert pilot.app.assistant.title == "space facts"


async def test_deleting_needs_a_clear_yes(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "tab", "delete")
        assert "in use" in notices(pilot)[-1]
        await press(pilot, "down", "delete")
        assert isinstance(pilot.app.screen, Confirm)
        assert "cannot be undone" in screen_text(pilot)
        await press(pilot, "enter")
        assert pilot.app.assistant.archive.gone == set(), "Enter alone says no"
        await press(pilot, "delete", "y")
        assert pilot.app.assistant.archive.gone == {"01A"}
        assert "rivers and lakes" not in screen_text(pilot)


async def test_x_writes_a_bundle_where_one_says(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "x")
        assert isinstance(pilot.app.screen, AskLine)
        assert "space-facts.llmedit" in screen_text(pilot)
        await press(pilot, "ctrl+u")
        write(pilot, "/there/mine.llmedit")
        await press(pilot, "enter")
        assert ("export", "01J", "/there/mine.llmedit") in pilot.app.assistant.calls
        assert notices(pilot)[-1] == "Written: /there/mine.llmedit"
        await press(pilot, "tab", "down", "x")
        assert "rivers-and-lakes.llmedit" in screen_text(pilot)


async def test_f4_and_f5_lead_there_and_back(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "f5")
        assert isinstance(pilot.app.screen, CompareScreen)
        await press(pilot, "f5")
        assert isinstance(pilot.app.screen, HistoryScreen)
        await press(pilot, "f5", "f4")
        assert isinstance(pilot.app.screen, HistoryScreen)
        await press(pilot, "f4")
        assert pilot.app.screen is pilot.app.chat


async def test_a_click_on_the_bar_is_the_key(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        await press(pilot, "home")
        await pilot.click(KeyBar, offset=(2 + len("↵ show   u"), 0))
        await settle(pilot)
        assert isinstance(pilot.app.screen, Confirm), "undo asks first"


async def test_own_keys_hold_here_too_and_help_begins_with_them(opened: Opened) -> None:
    async with opened(past=True, keys={"timeline.branch": "g", "history": "f9"}) as pilot:
        await settle(pilot)
        await press(pilot, "f9")
        assert "g branch" in screen_text(pilot)
        await press(pilot, "home", "g")
        assert ("branch", "t0-q") in pilot.app.assistant.calls
        await press(pilot, "f1")
        shown = screen_text(pilot)
        assert "runs straight down" in shown
        assert shown.index("History: the timeline") < shown.index("go on from this message")


async def test_a_failing_read_is_said_and_the_screen_stays(opened: Opened) -> None:
    async with opened(past=True) as pilot:
        await history(pilot)
        pilot.app.assistant.archive._timeline = lambda session: 1 / 0
        await press(pilot, "tab", "down")
        assert "ZeroDivisionError" in notices(pilot)[-1]
        assert isinstance(pilot.app.screen, HistoryScreen)


async def test_history_opens_while_the_engine_is_busy(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        gate = pilot.app.assistant.hold("token", 3)
        await ask(pilot, LONG, wait=False)
        await pilot.press("f4")
        for _ in range(50):
            await settle(pilot, jobs=False)
            if lines(pilot):
                break
        assert len(lines(pilot)) == 2
        gate.open()
        await settle(pilot)
        assert len(lines(pilot)) == 4, "what was said meanwhile is drawn"


@pytest.mark.parametrize("size", [(60, 20), (45, 15)])
async def test_in_a_small_window_the_panes_take_turns(
    opened: Opened, size: tuple[int, int]
) -> None:
    async with opened(size, past=True) as pilot:
        await history(pilot)
        screen = pilot.app.screen
        assert screen.query_one(TimelineList).display
        assert "capital of Australia" in screen_text(pilot)
        await press(pilot, "tab")
        assert screen.focused is screen.query_one(SessionList)
        assert "rivers and lakes" in screen_text(pilot)
        await press(pilot, "tab", "slash", *"the", "enter", "escape", "escape")
        assert pilot.app.screen is pilot.app.chat


async def test_markup_and_control_signs_are_shown_as_they_are(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot, "[/b] and \x1b[31m red")
        await press(pilot, "f4")
        assert "[/b] and ␛[31m red" in screen_text(pilot)


async def test_the_commands_open_the_screens(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, "/history")
        assert isinstance(pilot.app.screen, HistoryScreen)
        await press(pilot, "escape")
        await ask(pilot, "/branch 1")
        assert ("branch", "t0") in pilot.app.assistant.calls
        await ask(pilot, "/open")
        assert pilot.app.assistant.calls[-1] == ("open", "01J"), "alone: this very session"
        await ask(pilot, "/open 01A")
        assert texts(pilot, "user") == ["How long?"]
        await ask(pilot, "/compare unedited now Who was Emma?")
        assert isinstance(pilot.app.screen, CompareScreen)
        call = ("compare", "unedited", "now", ("Who was Emma?",))
        assert call in pilot.app.assistant.calls
