"""Writing: newline, history, completion, commands."""

from __future__ import annotations

import pytest
from conftest import Opened
from scenes import QUESTION, ask, settle, until
from test_chat import screen_text, texts
from textual.command import CommandList, CommandPalette

from tui.widgets.fix_dialog import FixDialog
from tui.widgets.help import HelpScreen


@pytest.mark.parametrize("key", ["ctrl+j", "alt+enter", "shift+enter"])
async def test_newline_and_send(opened: Opened, key: str) -> None:
    async with opened() as pilot:
        await pilot.press("o", "n", "e", key, "t", "w", "o")
        assert pilot.app.chat.composer.editor.text == "one\ntwo"
        await pilot.press("enter")
        await settle(pilot)
        assert pilot.app.assistant.calls == [("ask", "one\ntwo")]


async def test_enter_can_be_set_to_newline(opened: Opened) -> None:
    async with opened(enter_sends=False) as pilot:
        await pilot.press("o", "n", "e", "enter", "t", "w", "o")
        assert pilot.app.assistant.calls == []
        await pilot.press("ctrl+j")
        await settle(pilot)
        assert pilot.app.assistant.calls == [("ask", "one\ntwo")]


async def test_an_empty_line_is_not_sent(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("space", "enter")
        assert pilot.app.assistant.calls == []


async def test_pasting_never_sends(opened: Opened) -> None:
    from textual import events

    async with opened() as pilot:
        pilot.app.post_message(events.Paste("one\ntwo\n"))
        await pilot.pause()
        assert pilot.app.chat.composer.editor.text == "one\ntwo\n"
        assert pilot.app.assistant.calls == []


async def test_history_by_its_beginning(opened: Opened) -> None:
    async with opened() as pilot:
        editor = pilot.app.chat.composer.editor
        pilot.app.chat.composer.set_history(["What was before?", "Who was it?"])
        await ask(pilot)
        await pilot.press("up")
        assert editor.text == QUESTION
        await pilot.press("up")
        assert editor.text == "Who was it?"
        await pilot.press("down", "down")
        assert editor.text == "", "back at the draft"
        await pilot.press("W", "h", "a", "up", "up")
        assert editor.text == "What was before?", "only lines that begin with the draft"


async def test_earlier_sessions_are_in_the_history(opened: Opened, monkeypatch) -> None:
    from scripted import ScriptedAssistant

    monkeypatch.setattr(
        ScriptedAssistant, "__init__", _with_lines(ScriptedAssistant.__init__, ["older", "newer"])
    )
    async with opened() as pilot:
        await pilot.press("up")
        assert pilot.app.chat.composer.editor.text == "newer"


def _with_lines(init, lines):  # type: ignore[no-untyped-def]
    def made(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        init(self, *args, **kwargs)
        self.lines = lines

    return made


async def test_a_command_is_completed_and_run(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("slash", "m", "e")
        await pilot.pause()
        assert "/method [NAME]" in screen_text(pilot)
        await pilot.press("tab")
        assert pilot.app.chat.composer.editor.text == "/method "
        await pilot.pause()
        await pilot.press("down", "enter")
        await settle(pilot)
        assert pilot.app.chat.composer.editor.text == "", "nothing more to write: it was sent"
        assert pilot.app.assistant.snapshot().method == "rome"


async def test_enter_runs_a_begun_command_that_takes_no_argument(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("slash", "q", "u")
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert pilot.app.return_code == 0


async def test_an_argument_that_is_optional_is_not_forced(opened: Opened) -> None:
    async with opened((120, 60)) as pilot:
        pilot.app.chat.composer.set_text("/method ")
        await pilot.pause()
        await pilot.press("enter")
        await settle(pilot)
        assert any("Dai et al. 2022" in note.text for note in pilot.app.chat.transcript.notes)
        assert pilot.app.assistant.snapshot().method == "r-rome"


async def test_an_unknown_command_says_what_is_near(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot, "/undoo")
        assert "Did you mean '/undo'?" in texts(pilot, "note")[0]


async def test_a_command_that_cannot_be_used_says_why(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot, "/undo")
        assert texts(pilot, "note") == ["there is no edit to undo."]


@pytest.mark.parametrize("line", ["/help", "/edits", "/method", "/model", "/sessions", "/log"])
async def test_commands_that_show_something(opened: Opened, line: str) -> None:
    async with opened() as pilot:
        await ask(pilot, line)
        assert texts(pilot, "note") or pilot.app.chat.pane == "log"


async def test_fix_with_a_subject_needs_no_dialog(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, "/fix Australia => Canberra")
        assert pilot.app.assistant.calls[-1][:4] == ("correct", "Canberra", "Australia", None)
        assert texts(pilot, "model") == ["Canberra"]


async def test_fix_without_a_subject_asks_for_it(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, "/fix Canberra", wait=False)
        await settle(pilot)
        assert isinstance(pilot.app.screen, FixDialog)
        await pilot.press("enter")
        await settle(pilot)
        assert texts(pilot, "model") == ["Canberra"]


async def test_help_lists_every_command(opened: Opened) -> None:
    from tui.commands import REGISTRY

    async with opened((120, 140)) as pilot:
        await pilot.press("f1")
        await pilot.pause()
        assert isinstance(pilot.app.screen, HelpScreen)
        shown = screen_text(pilot)
        assert all(f"/{command.name}" in shown for command in REGISTRY.commands)
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, HelpScreen)


async def test_a_question_mark_is_a_character_in_the_composer(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("question_mark")
        assert pilot.app.chat.composer.editor.text == "?"
        pilot.app.chat.transcript.focus()
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)


async def test_the_palette_runs_commands(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        hits = pilot.app.screen.query_one(CommandList)
        await until(pilot, lambda: hits.option_count > 1)
        await pilot.press(*"show the log")
        await until(pilot, lambda: hits.option_count == 1)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: pilot.app.chat.pane == "log")
