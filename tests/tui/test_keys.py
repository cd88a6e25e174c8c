"""Keys have one table: bindings, help, configuration and documentation all read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Opened
from scenes import QUESTION, ask, fix, settle
from test_chat import screen_text
from textual.binding import Binding
from textual.keys import Keys
from textual.widgets import Input, OptionList

from engine.errors import BadSetting
from tui import keys
from tui.full_screen import FullScreen
from tui.screens.chat import ChatScreen
from tui.screens.compare import CompareScreen
from tui.screens.history import HistoryScreen
from tui.screens.replay import ReplayScreen
from tui.screens.side import SideScreen
from tui.widgets.composer import Editor
from tui.widgets.history_search import HistorySearch, matches
from tui.widgets.metric_cards import MetricCards
from tui.widgets.session_list import SessionList
from tui.widgets.timeline_list import TimelineList
from tui.widgets.transcript import Transcript

ROOT = Path(__file__).resolve().parents[2]


def test_every_binding_is_in_the_table_and_the_other_way_round() -> None:
    bound = {
        binding.id
        for owner in (
            FullScreen, ChatScreen, ReplayScreen, Transcript, Editor, MetricCards,
            SideScreen, HistoryScreen, TimelineList, SessionList, CompareScreen,
        )
        for binding in owner.__dict__["BINDINGS"]
        if isinstance(binding, Binding)
    }  # fmt: skip
    assert bound == set(keys.BY_ID)


def test_the_default_keys_are_without_clashes_and_named_as_textual_names_them() -> None:
    keys.checked({name: key.keys for name, key in keys.BY_ID.items()}, "defaults")
    known = {key.value for key in Keys}
    for name in keys.NAMED - {"comma"}:
        assert name in known, name


@pytest.mark.parametrize(
    ("written", "read"),
    [("Ctrl+R, F9", "ctrl+r,f9"), ("shift+ctrl+Up", "ctrl+shift+up"), ("?", "?"), ("X", "X")],
)
def test_keys_are_read_as_people_write_them(written: str, read: str) -> None:
    assert keys.normalised(written) == read


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"fixx": "f9"}, "no action 'fixx'. Did you mean 'fix'?"),
        ({"fix": "f99"}, "'f99' is not a key"),
        ({"fix": 9}, "must be a text of keys, not 9"),
        ({"fix": "ctrl+i"}, "'ctrl+i' is what terminals send for tab"),
        ({"fix": "x"}, "'x' would be written into the text"),
        ({"fix": "enter"}, "'enter' is needed for writing"),
        ({"fix": "f3"}, "'f3' is the key of 'undo'"),
        ({"message.copy": "f"}, "'f' is the key of 'message.fix'"),
        ({"message.copy": "shift+x"}, "write 'X'"),
        ({"message.copy": "f2"}, "'f2' is the key of 'fix'"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(chosen: dict[str, object], said: str) -> None:
    with pytest.raises(BadSetting, match=r"config\.toml") as caught:
        keys.checked(chosen, "config.toml")
    assert said in str(caught.value)


def test_two_actions_may_exchange_their_keys() -> None:
    swapped = {"fix": "f3", "undo": "f2"}
    assert keys.checked(swapped, "config.toml") == swapped


async def test_an_action_follows_its_new_key(opened: Opened) -> None:
    async with opened(keys={"fix": "f9", "message.copy": "y"}) as pilot:
        await ask(pilot)
        await pilot.press("f2")
        await settle(pilot)
        assert isinstance(pilot.app.screen, ChatScreen), "the old key does nothing"
        assert "F9 fix" in screen_text(pilot)
        assert "press F9, write the right one" in pilot.app.chat.query_one("#welcome").content
        await pilot.press("f9")
        await settle(pilot)
        assert not isinstance(pilot.app.screen, ChatScreen)
        await pilot.press("escape")
        pilot.app.chat.transcript.focus()
        await settle(pilot)
        assert "y copy" in screen_text(pilot)


async def test_redo_has_a_key_that_arrives_in_every_terminal(opened: Opened) -> None:
    """What xterm and tmux send for Shift+F3 is also where a cursor is, and Textual drops it."""
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        for redo in ("f8", "shift+f3", "f15"):
            await pilot.press("f3")
            await settle(pilot)
            assert [e.state for e in pilot.app.assistant.edits] == ["undone"]
            await pilot.press(redo)
            await settle(pilot)
            assert [e.state for e in pilot.app.assistant.edits] == ["applied"], redo
        await pilot.press("f1")
        await pilot.pause()
        assert "F8, Shift+F3" in screen_text(pilot)


async def test_f1_begins_with_where_one_is(opened: Opened) -> None:
    async with opened(keys={"message.retry": "R"}) as pilot:
        await ask(pilot)
        await pilot.press("f1")
        await pilot.pause()
        shown = screen_text(pilot)
        assert "Ask a question, or begin a command with a slash." in shown
        assert shown.index("Writing") < shown.index("Anywhere")
        await pilot.press("escape")
        pilot.app.chat.transcript.focus()
        await pilot.press("question_mark")
        await pilot.pause()
        shown = screen_text(pilot)
        assert "The chosen message is marked" in shown
        assert "ask again" in shown
        assert "R " in shown


async def test_the_search_goes_through_everything_that_was_written(opened: Opened) -> None:
    async with opened() as pilot:
        app = pilot.app
        app.chat.composer.set_history([f"question q{i} about Perth" for i in range(300)])
        await ask(pilot)
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert isinstance(app.screen, HistorySearch)
        assert app.screen.found[0] == QUESTION, "the newest first"
        assert app.focused is app.screen.query_one(Input)
        app.focused.insert_text_at_cursor("perth q17")
        await pilot.pause()
        assert app.screen.found[:2] == ["question q179 about Perth", "question q178 about Perth"]
        await pilot.press("down")
        assert app.screen.query_one(OptionList).highlighted == 1
        await pilot.press("enter")
        await pilot.pause()
        assert app.chat.composer.editor.text == "question q178 about Perth"
        assert app.chat.composer.editor.has_focus
        assert app.assistant.calls[-1] == ("ask", QUESTION), "nothing was sent"


def test_capitals_matter_only_where_some_are_typed() -> None:
    lines = ["the tower", "The bridge", "the bridge"]
    assert matches(lines, "bridge the") == ["the bridge", "The bridge"]
    assert matches(lines, "The") == ["The bridge"]
    assert matches(lines, "") == ["the bridge", "The bridge", "the tower"]


@pytest.mark.parametrize("pressed", [("ctrl+x", "ctrl+e"), ("ctrl+g",)])
async def test_the_editor_of_the_person_is_opened(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pressed: tuple[str, ...]
) -> None:
    script = tmp_path / "editor"
    script.write_text("#!/bin/sh\nprintf ' and more\\n' >> \"$2\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("EDITOR", f"{script} --wait")
    monkeypatch.delenv("VISUAL", raising=False)
    async with opened() as pilot:
        suspended: list[bool] = []
        monkeypatch.setattr(type(pilot.app), "suspend", lambda self: _Suspended(suspended))
        pilot.app.chat.composer.set_text("written here")
        await pilot.press(*pressed)
        await pilot.pause()
        assert suspended == [True, False]
        assert pilot.app.chat.composer.editor.text == "written here and more"
        assert not pilot.app.assistant.calls, "nothing was sent"


class _Suspended:
    def __init__(self, seen: list[bool]) -> None:
        self.seen = seen

    def __enter__(self) -> None:
        self.seen.append(True)

    def __exit__(self, *_: object) -> None:
        self.seen.append(False)


async def test_an_editor_that_is_not_there_is_named(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor -x")
    async with opened() as pilot:
        pilot.app.chat.composer.set_text("kept")
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert "there is no editor 'no-such-editor'" in screen_text(pilot)
        assert pilot.app.chat.composer.editor.text == "kept"


async def test_control_x_cuts_a_selection(opened: Opened) -> None:
    async with opened() as pilot:
        pilot.app.chat.composer.set_text("some words")
        pilot.app.chat.composer.editor.select_all()
        await pilot.press("ctrl+x")
        assert pilot.app.chat.composer.editor.text == ""


async def test_enter_may_begin_a_line(opened: Opened) -> None:
    async with opened(enter_sends=False) as pilot:
        await pilot.press("a", "enter", "b")
        assert pilot.app.chat.composer.editor.text == "a\nb"
        await pilot.press("ctrl+j")
        await settle(pilot)
        assert pilot.app.assistant.calls == [("ask", "a\nb")]


def test_the_page_of_keys_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "key_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
