"""The application on a scripted assistant; nothing that moves by itself."""

from __future__ import annotations

import difflib
import html
import pickle
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # scenes, scripted

from pytest_textual_snapshot import node_to_report_path, normalize_svg
from scenes import frozen, make_app, rest, settle
from textual import constants
from textual.app import App
from textual.pilot import Pilot
from tiny_chat import Make, assistants

from tui.app import EditApp

Scene = Callable[[Pilot], Awaitable[None]]
Opened = Callable[..., AbstractAsyncContextManager[Pilot]]


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No animation, no colour settings of the developer's terminal."""
    monkeypatch.setattr(constants, "TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setattr("tui.clipboard.TOOLS", ())  # the developer's clipboard is left alone
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def apps() -> Iterator[list[EditApp]]:
    """Applications that were made; their assistants are closed at the end."""
    made: list[EditApp] = []
    yield made
    for app in made:
        app.assistant.open_all()  # type: ignore[attr-defined]
        app.assistant.close()


@pytest.fixture
def opened(apps: list[EditApp]) -> Opened:
    """`async with opened(size=..., **script) as pilot`: loaded and drawn."""

    @asynccontextmanager
    async def run(
        size: tuple[int, int] = (120, 36), wait: bool = True, **script: object
    ) -> AsyncIterator[Pilot]:
        app = make_app(**script)  # type: ignore[arg-type]
        apps.append(app)
        with frozen(app.clock):  # type: ignore[attr-defined]
            async with app.run_test(size=size) as pilot:
                if wait:
                    await settle(pilot)
                yield pilot

    return run


@pytest.fixture
def make(tiny_folder: Callable[..., Path], tmp_path: Path) -> Iterator[Make]:
    """`make(**options)`: a loaded assistant with a tiny chat model; all closed at the end."""
    with assistants(tiny_folder, tmp_path) as made:
        yield made


@pytest.fixture
def snap_compare(
    snap_compare: Callable[..., bool], request: pytest.FixtureRequest
) -> Callable[..., bool]:
    """The plugin's, of a picture that stands still; where it is another, its lines are told."""

    def compare(app: App[object], *, terminal_size: tuple[int, int], run_before: Scene) -> bool:
        async def scene(pilot: Pilot) -> None:
            await run_before(pilot)
            await rest(pilot)

        same = snap_compare(app, terminal_size=terminal_size, run_before=scene)
        if not same:
            _, expected, drawn, *_ = pickle.loads(node_to_report_path(request.node).read_bytes())
            print(
                *difflib.unified_diff(_lines(expected), _lines(drawn), lineterm="", n=0), sep="\n"
            )
        return same

    return compare


def _lines(svg: str) -> list[str]:
    """The texts of a picture of the screen, with their styles and places."""
    return [
        f"{html.unescape(text)!r} {attributes}"
        for attributes, text in re.findall(r"<text([^>]*)>([^<]*)</text>", normalize_svg(svg))
    ]
