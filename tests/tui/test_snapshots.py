"""How the screens look. `pytest tests/tui/test_snapshots.py --snapshot-update` accepts changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scenes import SCENES, frozen, make_app, script

from tui.app import EditApp

SIZES = {"wide": (120, 36), "narrow": (80, 24)}
SHOWN = (
    "empty", "loading", "streaming", "commands", "dialog", "dialog-invalid", "edit-running",
    "edit-applied", "edit-failed", "help", "history", "history-undone", "history-search",
    "undo-question", "comparison", "comparison-running", "batch",
)  # fmt: skip
MAIN = ("empty", "streaming", "edit-running", "edit-applied", "dialog", "history", "comparison")

Compare = Callable[..., bool]


def compare(
    snap_compare: Compare, apps: list[EditApp], scene: str, size: tuple[int, int], theme: str
) -> bool:
    app = make_app(theme, **script(scene))
    apps.append(app)
    with frozen(app.clock):  # type: ignore[attr-defined]
        return snap_compare(app, terminal_size=size, run_before=SCENES[scene])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SHOWN)
def test_screen(snap_compare: Compare, apps: list[EditApp], scene: str, size: str) -> None:
    assert compare(snap_compare, apps, scene, SIZES[size], "llm-edit-dark")


@pytest.mark.parametrize("scene", ["edit-failed", "dialog", "history", "comparison"])
def test_light_theme(snap_compare: Compare, apps: list[EditApp], scene: str) -> None:
    assert compare(snap_compare, apps, scene, SIZES["wide"], "llm-edit-light")


@pytest.mark.parametrize("scene", MAIN)
def test_medium(snap_compare: Compare, apps: list[EditApp], scene: str) -> None:
    assert compare(snap_compare, apps, scene, (100, 30), "llm-edit-dark")


@pytest.mark.parametrize("scene", MAIN)
def test_small(snap_compare: Compare, apps: list[EditApp], scene: str) -> None:
    assert compare(snap_compare, apps, scene, (60, 20), "llm-edit-dark")


@pytest.mark.parametrize("scene", ["edit-applied", "edit-failed", "history-undone", "comparison"])
def test_without_colour(
    snap_compare: Compare, apps: list[EditApp], scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert compare(snap_compare, apps, scene, SIZES["wide"], "llm-edit-dark")
