"""How the screens look. `pytest tests/tui/test_snapshots.py --snapshot-update` accepts changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scenes import SCENES, frozen, make_app

from tui.app import EditApp

SIZES = {"wide": (120, 36), "narrow": (80, 24)}
SHOWN = (
    "empty", "loading", "streaming", "commands", "dialog", "dialog-invalid", "edit-running",
    "edit-applied", "edit-failed", "help",
)  # fmt: skip

Compare = Callable[..., bool]


def compare(
    snap_compare: Compare, apps: list[EditApp], scene: str, size: tuple[int, int], theme: str
) -> bool:
    app = make_app(theme, load_gate=scene == "loading")
    apps.append(app)
    with frozen(app.clock):  # type: ignore[attr-defined]
        return snap_compare(app, terminal_size=size, run_before=SCENES[scene])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SHOWN)
def test_screen(snap_compare: Compare, apps: list[EditApp], scene: str, size: str) -> None:
    assert compare(snap_compare, apps, scene, SIZES[size], "llm-edit-dark")


@pytest.mark.parametrize("scene", ["edit-failed", "dialog"])
def test_light_theme(snap_compare: Compare, apps: list[EditApp], scene: str) -> None:
    assert compare(snap_compare, apps, scene, SIZES["wide"], "llm-edit-light")


def test_medium(snap_compare: Compare, apps: list[EditApp]) -> None:
    assert compare(snap_compare, apps, "edit-running", (100, 30), "llm-edit-dark")


@pytest.mark.parametrize("scene", ["edit-applied", "edit-failed"])
def test_without_colour(
    snap_compare: Compare, apps: list[EditApp], scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert compare(snap_compare, apps, scene, SIZES["wide"], "llm-edit-dark")
