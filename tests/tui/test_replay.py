"""Replay on the full screen: what is drawn where it stands, and every key of the transport bar."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from recorded import QUESTION, SYDNEY, Script, recording
from scripted import Clock
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.events import EditPlanned
from sessions import Store
from tui import clipboard
from tui.player import Player
from tui.replaying import ReplayApp
from tui.screens.replay import ReplayScreen
from tui.tape import Tape, tape
from tui.widgets.edit_strip import EditStrip
from tui.widgets.message import MessageView
from tui.widgets.transport import Transport, clock_text, parse_time

Opened = Callable[..., contextlib.AbstractAsyncContextManager[Pilot]]
Compare = Callable[..., bool]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Tape:
    return tape(recording(tmp_path_factory.mktemp("busy")))


def make_app(found: Tape, **options: object) -> ReplayApp:
    """A replay whose clock only the test moves, and that has not begun to run."""
    clock = Clock()
    app = ReplayApp(Player(found, clock.monotonic), **options)  # type: ignore[arg-type]
    app.animation_level = "none"
    app.clock = clock  # type: ignore[attr-defined]
    return app


@pytest.fixture
def opened(busy: Tape) -> Opened:
    @contextlib.asynccontextmanager
    async def run(
        size: tuple[int, int] = (120, 36), found: Tape | None = None, **options: object
    ) -> AsyncIterator[Pilot]:
        app = make_app(found or busy, **options)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield pilot

    return run


def screen(pilot: Pilot) -> ReplayScreen:
    found = pilot.app.screen
    assert isinstance(found, ReplayScreen)
    return found


def said(pilot: Pilot) -> list[str]:
    """The texts of the transcript, as they are mounted."""
    views = screen(pilot).transcript.query(MessageView)
    return [view.entry.text for view in views]


def transport(pilot: Pilot) -> str:
    return str(screen(pilot).query_one(Transport).render())


async def pass_time(pilot: Pilot, seconds: float) -> None:
    pilot.app.clock.advance(seconds)
    screen(pilot).tick()
    await pilot.pause()


async def test_it_plays_from_the_beginning_and_draws_what_was_recorded(opened: Opened) -> None:
    async with opened() as pilot:
        player = screen(pilot).player
        assert player.playing
        await pass_time(pilot, 0.0)
        assert said(pilot) == [QUESTION]
        assert "▶ playing 1×  0:00 / 0:" in transport(pilot)
        await pass_time(pilot, 1.0)
        assert SYDNEY.startswith(said(pilot)[1])
        assert said(pilot)[1] not in ("", SYDNEY), "the answer is being said"
        await pass_time(pilot, 0.6)
        assert said(pilot) == [QUESTION, SYDNEY]
        await pass_time(pilot, 3600)
        assert not player.playing
        assert "at the end" in transport(pilot)
        assert "Edit #5 dropped, exactly." in said(pilot)


async def test_its_welcome_asks_for_nothing_that_a_replay_cannot_do(opened: Opened) -> None:
    async with opened(keys={"replay.leave": "l"}) as pilot:
        welcome = str(screen(pilot).query_one("#welcome", Static).content)
        assert "nothing can be asked or changed here" in welcome
        assert "Space  play, pause      ]  next edit      F1  all keys      l  leave" in welcome
        assert "F2" not in welcome


async def test_an_edit_is_drawn_step_by_step(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("right_square_bracket")
        assert "edit 1/5" in transport(pilot)
        assert "2 min of waiting left out here" in transport(pilot)
        player = screen(pilot).player
        while not isinstance(player.moments[player.position - 1].event, EditPlanned):
            await pilot.press("right")
        for _ in range(4):
            await pilot.press("right")
        state = screen(pilot).edit
        assert state is not None
        assert len(state.steps) == 4
        assert state.title == "Edit 1 · r-rome · layer 6"
        await pilot.press("left")
        assert screen(pilot).edit is not None
        assert len(screen(pilot).edit.steps) == 3


async def test_back_and_forth_draw_the_same(opened: Opened) -> None:
    async with opened() as pilot:
        seen: dict[int, list[str]] = {}
        player = screen(pilot).player
        await pilot.press("space")
        while not player.ended and len(seen) < 12:
            await pilot.press("right")
            await pilot.pause()
            seen[player.position] = said(pilot)
        for _ in range(8):
            await pilot.press("left")
            await pilot.pause()
            assert said(pilot) == seen[player.position]


async def test_space_pauses_and_goes_on_and_begins_anew_at_the_end(opened: Opened) -> None:
    async with opened() as pilot:
        player = screen(pilot).player
        await pass_time(pilot, 0.5)
        await pilot.press("space")
        assert "❚❚ paused" in transport(pilot)
        position = player.position
        await pass_time(pilot, 60)
        assert player.position == position
        await pilot.press("space")
        await pass_time(pilot, 3600)
        assert player.ended
        await pilot.press("space")
        assert player.playing
        assert player.seconds == 0.0


async def test_the_speed_keys(opened: Opened) -> None:
    async with opened() as pilot:
        for key, speed in (("2", 2.0), ("3", 4.0), ("4", 8.0), ("1", 1.0)):
            await pilot.press(key)
            assert screen(pilot).player.speed == speed
        await pilot.press("4")
        await pass_time(pilot, 1.0)
        assert screen(pilot).player.seconds == pytest.approx(8.0)


async def test_going_to_a_time(opened: Opened) -> None:
    async with opened() as pilot:
        player = screen(pilot).player
        await pilot.press("space", "g")
        field = pilot.app.screen.query_one(Input)
        field.insert_text_at_cursor("soon")
        await pilot.press("enter")
        assert "'soon' is not a time" in str(pilot.app.screen.query_one("#time-reason").render())
        field.clear()
        field.insert_text_at_cursor("0:08.5")
        await pilot.press("enter")
        await pilot.pause()
        assert player.seconds == pytest.approx(8.5)
        assert [m.at <= 8.5 for m in player.moments].count(True) == player.position
        await pilot.press("g", "escape")
        assert isinstance(pilot.app.screen, ReplayScreen), "Esc closes the question only"


async def test_a_click_on_the_track_goes_there(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("space")
        bar = screen(pilot).query_one(Transport)
        await pilot.click(bar, offset=(bar.size.width + 1, 2))
        await pilot.pause()
        assert screen(pilot).player.ended


async def test_nothing_can_be_changed(opened: Opened) -> None:
    async with opened() as pilot:
        await pass_time(pilot, 3600)
        before = said(pilot)
        await pilot.press("f2", "f3", "tab", "f", "r")
        await pilot.pause()
        assert said(pilot) == before
        assert pilot.app.screen is pilot.app.replay
        assert any("This is a replay" in n.message for n in pilot.app._notifications)


async def test_copying_says_what_is_known_of_it_and_names_no_command(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipboard, "TOOLS", ())
    async with opened() as pilot:
        await pilot.press("space", "right_square_bracket")
        screen(pilot).transcript.focus()
        await pilot.press("c")
        for _ in range(100):
            await pilot.pause(0.01)
            if pilot.app._notifications:
                break
        (note,) = pilot.app._notifications
        assert note.message.endswith("that cannot be verified here.")
        assert pilot.app.clipboard in said(pilot)


@pytest.mark.parametrize("key", ["q", "escape", "ctrl+q"])
async def test_leaving(opened: Opened, key: str) -> None:
    async with opened() as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert pilot.app.return_code == 0
        assert not pilot.app.is_running


async def test_the_log_is_that_of_the_position(opened: Opened) -> None:
    async with opened() as pilot:
        await pass_time(pilot, 3600)
        log = [text for text, _ in screen(pilot).log_pane.texts]
        assert log == screen(pilot).player.log(500)
        assert any("step  1/12" in line for line in log)
        await pilot.press("left_square_bracket", "left_square_bracket")
        log = [text for text, _ in screen(pilot).log_pane.texts]
        assert log == screen(pilot).player.log(500)


async def test_help_has_the_keys_of_the_replay_first(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("f1")
        titles = [str(each.render()) for each in pilot.app.screen.query(".help-title")]
        assert titles[:2] == ["Here", "Replay (llm-edit replay)"]
        assert "Commands" not in titles


async def test_the_keys_are_a_persons_to_choose(opened: Opened) -> None:
    async with opened(keys={"replay.next": "n"}) as pilot:
        await pilot.press("space")
        before = screen(pilot).player.position
        await pilot.press("n", "n")
        assert screen(pilot).player.position > before


async def test_markup_in_recorded_text_is_shown_as_it_is(opened: Opened) -> None:
    async with opened() as pilot:
        await pass_time(pilot, 3600)
        assert "Tell me [b]everything[/b]." in said(pilot)


async def test_an_empty_session_says_so(opened: Opened, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        empty = tape(store.recording(Script(store).session))
    async with opened(found=empty) as pilot:
        assert said(pilot) == ["Nothing was recorded in this session."]
        for key in ("space", "right", "left", "right_square_bracket", "left_square_bracket", "3"):
            await pilot.press(key)
        assert "0:00 / 0:00 · event 0/0" in transport(pilot)


async def test_narrow_terminals_have_the_strip(opened: Opened) -> None:
    async with opened(size=(80, 24)) as pilot:
        await pilot.press("right_square_bracket", *["right"] * 6)
        assert screen(pilot).query_one(EditStrip).display
        assert screen(pilot).query_one(Transport).size.height == 2


def test_times_are_read_and_written() -> None:
    assert [parse_time(text) for text in ("90", " 1:30 ", "1:02:03", "0.5")] == [90, 90, 3723, 0.5]
    assert [clock_text(s) for s in (0, 65.9, 3723)] == ["0:00", "1:05", "1:02:03"]
    for text in ("", "x", "1:60", "-1", "1:2:3:4", "inf", "nan"):
        with pytest.raises(ValueError, match="is not a time"):
            parse_time(text)


# -- pictures -----------------------------------------------------------------------------------


async def at_an_edit(pilot: Pilot) -> None:
    await pilot.pause()
    await pilot.press("right_square_bracket", *["right"] * 8)
    await pilot.pause()


async def at_the_end(pilot: Pilot) -> None:
    await pilot.pause()
    await pass_time(pilot, 3600)


SCENES = {"edit": at_an_edit, "end": at_the_end}


@pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["wide", "narrow"])
@pytest.mark.parametrize("scene", SCENES)
def test_screen(snap_compare: Compare, busy: Tape, scene: str, size: tuple[int, int]) -> None:
    assert snap_compare(make_app(busy), terminal_size=size, run_before=SCENES[scene])


def test_ascii(snap_compare: Compare, busy: Tape) -> None:
    app = make_app(busy, ascii=True)
    assert snap_compare(app, terminal_size=(100, 30), run_before=at_an_edit)


def test_light(snap_compare: Compare, busy: Tape) -> None:
    app = make_app(busy, theme="llm-edit-light")
    assert snap_compare(app, terminal_size=(60, 20), run_before=at_an_edit)
