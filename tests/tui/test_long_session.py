"""A conversation of 500 messages is opened with few widgets; `scripts/measure_ui.py` times it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from conftest import Opened
from scenes import rest, settle
from scripted import ScriptedAssistant
from test_chat import screen_text

from sessions.store import Store
from tui.app import EditApp
from tui.screens.history import HistoryScreen
from tui.timeline import turns_at
from tui.tree import read_timeline
from tui.views import TurnView
from tui.widgets.message import MessageView
from tui.widgets.timeline_list import TimelineList

TURNS = 250
SECONDS = 1.0  # of this process, in the best of three: one that nothing else disturbs


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
    spent = [await drawn(opened, *session) for _ in range(3)]
    assert min(spent) < SECONDS


async def drawn(opened: Opened, home: Path, id: str) -> float:
    """The seconds that it takes."""
    async with opened() as pilot:
        chat = pilot.app.chat
        started = time.process_time()
        with Store.open(home) as store:
            turns = [turn.view(turn.node, {}) for turn in turns_at(store, id)]
        chat.transcript.sync(turns)
        for _ in range(100):  # a pause may end before a busy machine has drawn
            await pilot.pause()
            if f"What is number {TURNS - 1}?" in screen_text(pilot):
                break
        spent = time.process_time() - started
        assert f"What is number {TURNS - 1}?" in screen_text(pilot)
        assert len(chat.transcript.entries()) == 2 * TURNS
        assert len(chat.query(MessageView)) <= 25
        assert not chat.query(MessageView).first().children
    return spent


async def test_the_first_message_is_reached_by_keys(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.widgets.transcript.MORE", TURNS)
    async with opened() as pilot:
        transcript = pilot.app.chat.transcript
        transcript.sync(said())
        await pilot.pause()
        transcript.focus()
        await pilot.pause()
        await pilot.press("m", "m", "home")
        await rest(pilot)
        assert not transcript.query_one("#load-more").display
        assert "What is number 0?" in screen_text(pilot)
        assert len(pilot.app.chat.query(MessageView)) == 2 * TURNS


async def test_a_scroll_bar_does_not_hide_the_end(opened: Opened) -> None:
    """It takes a column, so that texts take more lines than were counted without it."""
    async with opened() as pilot:
        transcript = pilot.app.chat.transcript
        transcript.sync(said())
        await rest(pilot)
        assert transcript.scroll_y == transcript.max_scroll_y > 0
        last = transcript.query(MessageView).last()
        assert last.region.bottom <= transcript.content_region.bottom


async def test_torch_waits_until_the_conversation_is_drawn() -> None:
    drawn = []

    class Watched(ScriptedAssistant):
        """A session of 250 turns is recalled."""

        def recall(self):
            self.turns, self.loaded = said(), True
            return self._submit("recall", super()._recall)

        def load(self, after=None):
            assert after is not None
            known = after.set
            after.set = lambda: (drawn.append(text(app)), known())  # type: ignore[method-assign]
            return super().load(after)

    app = EditApp(Watched)
    async with app.run_test(size=(120, 36)) as pilot:
        while not drawn:
            await pilot.pause(0.01)
    app.assistant.close()
    assert f"Number {TURNS - 1} is" in drawn[0]


def said() -> list[TurnView]:
    return [
        TurnView(
            id=f"t{turn}", question=f"What is number {turn}?", answer=f"Number {turn} is it. " * 8
        )
        for turn in range(TURNS)
    ]


def text(app: EditApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def test_its_timeline_is_drawn(opened: Opened, session: tuple[Path, str]) -> None:
    spent = [await timeline_drawn(opened, *session) for _ in range(3)]
    assert min(spent) < 2 * SECONDS  # the first drawing of a new screen is in it


async def timeline_drawn(opened: Opened, home: Path, id: str) -> float:
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
    return spent
