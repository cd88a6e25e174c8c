"""The screens worth looking at, each reached the way a person would reach it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from unittest import mock

from scripted import Clock, ScriptedAssistant
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from engine.requests import Fact, Request
from tui.app import EditApp
from tui.batch import Batch

MEMORY = 640 * 2**20
QUESTION = "What is the capital of Australia?"
LONG = "Where is the Space Needle?"


def make_app(
    theme: str = "llm-edit-dark", enter_sends: bool = True, *, ascii: bool = False,
    keys: dict[str, str] | None = None, **script: object,
) -> EditApp:  # fmt: skip
    """The application on a scripted assistant, with frozen memory and a scripted clock."""
    clock = Clock()
    made: list[ScriptedAssistant] = []

    def make(signal):  # type: ignore[no-untyped-def]
        made.append(ScriptedAssistant(signal, clock=clock, **script))  # type: ignore[arg-type]
        return made[0]

    app = EditApp(
        make, theme=theme, enter_sends=enter_sends, ascii=ascii, keys=keys,
        memory=lambda: MEMORY, clock=clock.monotonic,
    )  # fmt: skip
    app.animation_level = "none"
    app.clock = clock  # type: ignore[attr-defined]
    return app


@contextlib.contextmanager
def frozen(clock: Clock):  # type: ignore[no-untyped-def]
    """The worker reads the scripted clock, and no cursor blinks."""
    with (
        mock.patch("engine.worker.time", clock),
        mock.patch.object(TextArea, "cursor_blink", False),
        mock.patch.object(Input, "cursor_blink", False),
    ):
        yield


def _working(app: EditApp) -> bool:
    return bool(app.feed.active or app.assistant.worker.busy or not app.begun)


async def settle(pilot: Pilot, *, jobs: bool = True) -> None:
    """Wait until the jobs have ended and everything they said is drawn."""
    app = pilot.app
    assert isinstance(app, EditApp)
    for _ in range(2000):
        if app.begun:
            app._tick()
        await pilot.pause(0.002)
        if not jobs:
            break
        if not _working(app):
            await pilot.pause()  # a job may have signalled and not been heard of yet
            if not _working(app):
                break
    app._tick()
    await pilot.pause()


async def rest(pilot: Pilot) -> None:
    """Wait until the picture has stood still for a while.

    A pause ends when the process has had little to do for 20 ms, and so it does when the machine
    did not let it run: what was asked for meanwhile may be drawn later.
    """
    drawn, still = None, 0
    for _ in range(500):
        await pilot.pause(0.02)
        picture = pilot.app.screen._compositor.render_strips()
        still = still + 1 if picture == drawn else 0
        if still == 4:
            return
        drawn = picture
    raise AssertionError("the screen does not come to rest")


async def reach(pilot: Pilot, gate) -> None:  # type: ignore[no-untyped-def]
    """Wait until the script stands at a gate, and what came before it is drawn."""
    for _ in range(600):
        if gate.reached.is_set():
            break
        await pilot.pause(0.01)
    assert gate.reached.is_set()
    await settle(pilot, jobs=False)


async def until(pilot: Pilot, met: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that comes when the machine has time for it."""
    ends = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < ends
        await pilot.pause(0.02)


async def ask(pilot: Pilot, text: str = QUESTION, *, wait: bool = True) -> None:
    pilot.app.chat.composer.set_text(text)
    await pilot.press("enter")
    if wait:
        await pilot.pause()
        await settle(pilot)


def write(pilot: Pilot, text: str) -> None:
    """Text into the field that has the focus."""
    field = pilot.app.focused
    assert isinstance(field, Input)
    field.insert_text_at_cursor(text)


async def fix(pilot: Pilot, text: str = "Canberra", *, apply: bool = True) -> None:
    await pilot.press("f2")
    await settle(pilot)
    write(pilot, text)
    await pilot.pause()
    await settle(pilot)
    if apply:
        await pilot.press("enter")
        await pilot.pause()


async def history(pilot: Pilot) -> None:
    await settle(pilot)
    await pilot.press("f4")
    await settle(pilot)


async def history_undone(pilot: Pilot) -> None:
    await settle(pilot)
    await pilot.press("f3", "f4")
    await settle(pilot)


async def history_search(pilot: Pilot) -> None:
    await history(pilot)
    await pilot.press("slash", *"the")
    await settle(pilot)


async def undo_question(pilot: Pilot) -> None:
    await history(pilot)
    await pilot.press("home", "u")
    await settle(pilot)


async def comparison(pilot: Pilot) -> None:
    await settle(pilot)
    await pilot.press("f5")
    await settle(pilot)


async def comparison_running(pilot: Pilot) -> None:
    await settle(pilot)
    gate = pilot.app.assistant.hold("compare", 4)
    await pilot.press("f5")
    await reach(pilot, gate)


Scene = Callable[[Pilot], Awaitable[None]]


async def empty(pilot: Pilot) -> None:
    await settle(pilot)


async def streaming(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot)
    gate = pilot.app.assistant.hold("token", 14)
    await ask(pilot, LONG, wait=False)
    await reach(pilot, gate)


async def dialog(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot)
    await fix(pilot, apply=False)


async def dialog_invalid(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot)
    await fix(pilot, "x", apply=False)
    await pilot.press("tab", "ctrl+u")
    write(pilot, "Austria")
    await pilot.pause()
    await settle(pilot)


async def edit_running(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot)
    gate = pilot.app.assistant.hold("step", 15)
    await fix(pilot)
    await reach(pilot, gate)


async def edit_applied(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot, LONG)
    await ask(pilot)
    await fix(pilot)
    await settle(pilot)


async def edit_failed(pilot: Pilot) -> None:
    pilot.app.assistant.succeed = False
    await edit_applied(pilot)


async def edit_undone(pilot: Pilot) -> None:
    await edit_applied(pilot)
    await pilot.press("f3")
    await settle(pilot)


async def log(pilot: Pilot) -> None:
    await edit_applied(pilot)
    await pilot.press("f6")
    if pilot.app.size.width < 110:
        await pilot.press("f6")
    await settle(pilot)


def some_facts() -> Batch:
    capitals = (
        ("Australia", "Canberra"),
        ("Kenya", "Nairobi"),
        ("Peru", "Lima"),
        ("Chad", "N'Djamena"),
    )
    facts = [
        Request(prompt=f"What is the capital of {name}?", target_new=city, subject=name, chat=True)
        for name, city in capitals
    ]
    return Batch([Fact(request=fact) for fact in facts], "capitals.jsonl")


async def batch(pilot: Pilot) -> None:
    await settle(pilot)
    gate = pilot.app.assistant.hold("step", 50)
    pilot.app.batches.begin(some_facts())
    await reach(pilot, gate)


async def help(pilot: Pilot) -> None:
    await settle(pilot)
    await pilot.press("f1")
    await pilot.pause()


async def commands(pilot: Pilot) -> None:
    await settle(pilot)
    await ask(pilot)
    await pilot.press("slash")
    await pilot.pause()


async def loading(pilot: Pilot) -> None:
    await reach(pilot, pilot.app.assistant.gates[0])
    await ask(pilot, wait=False)
    await settle(pilot, jobs=False)


SCENES: dict[str, Scene] = {
    "empty": empty,
    "loading": loading,
    "streaming": streaming,
    "commands": commands,
    "dialog": dialog,
    "dialog-invalid": dialog_invalid,
    "edit-running": edit_running,
    "edit-applied": edit_applied,
    "edit-failed": edit_failed,
    "edit-undone": edit_undone,
    "history": history,
    "history-undone": history_undone,
    "history-search": history_search,
    "undo-question": undo_question,
    "comparison": comparison,
    "comparison-running": comparison_running,
    "log": log,
    "batch": batch,
    "help": help,
}


RESUMED = frozenset(
    {"history", "history-undone", "history-search", "undo-question", "comparison",
     "comparison-running"}
)  # fmt: skip


def script(name: str) -> dict[str, bool]:
    """What the assistant of a scene is made with."""
    return {"load_gate": name == "loading", "past": name in RESUMED}


@contextlib.asynccontextmanager
async def play(
    name: str, size: tuple[int, int], theme: str = "llm-edit-dark"
) -> AsyncIterator[EditApp]:
    """The application at a scene."""
    app = make_app(theme, **script(name))
    try:
        with frozen(app.clock):  # type: ignore[attr-defined]
            async with app.run_test(size=size) as pilot:
                await SCENES[name](pilot)
                await rest(pilot)
                yield app
    finally:
        app.assistant.open_all()  # type: ignore[attr-defined]
        app.assistant.close()
