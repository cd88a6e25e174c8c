"""A conversation of 500 messages is opened within a second, with few widgets."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from conftest import Opened
from scenes import settle
from test_chat import screen_text

from sessions.store import Store
from tui.screens.history import HistoryScreen
from tui.timeline import turns_at
from tui.tree import read_timeline
from tui.widgets.message import MessageView
from tui.widgets.timeline_list import TimelineList

TURNS = 250
SECONDS = 1.0  # of this process, whatever else the machine does


@pytest.fixture
def session(tmp_path: Path) -> tuple[Path, str]:
    """A recorded session of 250 questions and answers."""
    with Store.open(tmp_path) as store:
        model = store.add_model("tiny", "folder", "f" * 64, "float32", "llama")
        id = store.create_session(model, method="r-rome").id
        for turn in range(TURNS):
            store.add_message(id, "user", f"What is number {turn}?")
            store.add_message(id, "assistant", f"Number {turn} is [b]{turn}[/b]. " * 8)
    return tmp_path, id


async def test_the_conversation_is_drawn(opened: Opened, session: tuple[Path, str]) -> None:
    home, id = session
    async with opened() as pilot:
        chat = pilot.app.chat
        started = time.process_time()
        with Store.open(home) as store:
            turns = [turn.view(turn.node, {}) for turn in turns_at(store, id)]
        chat.transcript.sync(turns)
        await pilot.pause()
        spent = time.process_time() - started
        assert f"What is number {TURNS - 1}?" in screen_text(pilot)
        assert len(chat.transcript.entries()) == 2 * TURNS
        assert len(chat.query(MessageView)) <= 25
        assert spent < SECONDS


async def test_its_timeline_is_drawn(opened: Opened, session: tuple[Path, str]) -> None:
    home, id = session
    async with opened() as pilot:
        started = time.process_time()
        with Store.open(home) as store:
            timeline = dataclasses.replace(read_timeline(store, id), session="01J")
        pilot.app.assistant.archive._timeline = lambda _: timeline
        await pilot.press("f4")
        await settle(pilot)
        spent = time.process_time() - started
        assert isinstance(pilot.app.screen, HistoryScreen)
        assert pilot.app.screen.query_one(TimelineList).option_count == 2 * TURNS
        assert "[b]249[/b]" in screen_text(pilot)
        assert spent < 2 * SECONDS  # the first drawing of a new screen is in it
