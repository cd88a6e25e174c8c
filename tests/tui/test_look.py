"""Themes, the terminal's background, and drawing without braille."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Opened
from scenes import ask, fix, settle
from test_chat import screen_text

from engine.errors import BadSetting
from tui import background, settings
from tui.launch import theme_of
from tui.theme import THEMES

ROOT = Path(__file__).resolve().parents[2]


def test_short_names_of_themes_are_of_themes_that_exist() -> None:
    full = {theme.name for theme in THEMES}
    assert {name for short, name in settings.THEMES.items() if short != "auto"} == full
    assert settings.known_theme("light", "") == "llm-edit-light"
    assert settings.known_theme("nord", "") == "nord"
    with pytest.raises(BadSetting, match=r"there is no theme 'neon'.*Known: auto, dark"):
        settings.known_theme("neon", "config.toml")


@pytest.mark.parametrize(
    ("answer", "light"),
    [
        (b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;c", True),
        (b"\x1b]11;rgb:fd/f6/e3\x07", True),
        (b"\x1b]11;rgb:0000/0000/0000\x1b\\", False),
        (b"\x1b]11;rgba:1111/1111/1111/ffff\x1b\\", False),
        (b"\x1b[?62;c", False),
        (b"", False),
    ],
)
def test_the_terminal_s_answer_is_read(answer: bytes, light: bool) -> None:
    assert background.light(answer) == light


def test_the_variable_of_some_terminals_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert theme_of("auto") == "llm-edit-light"
    monkeypatch.setenv("COLORFGBG", "15;0")
    assert theme_of("auto") == "llm-edit-dark"
    assert theme_of("nord") == "nord"


def test_the_terminal_is_asked_and_left_as_it_was() -> None:
    """A terminal that answers like xterm on white."""
    program = "from tui.background import is_light; print('LIGHT' if is_light() else 'DARK')"
    controller, terminal = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("COLORFGBG", "SSH_CONNECTION")}
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT)},
        stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        asked = b""
        while b"\x1b[c" not in asked:
            asked += os.read(controller, 256)
        os.write(controller, b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;c")
        said, _ = child.communicate(timeout=30)
        assert said == "LIGHT\n"
    finally:
        child.kill()
        os.close(controller)


async def test_ascii_draws_neither_braille_nor_frames(opened: Opened) -> None:
    async with opened(ascii=True) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        shown = screen_text(pilot)
        assert not any(0x2800 <= ord(char) < 0x2900 or char in "╭│━─▁" for char in shown)
        assert "+-" in shown
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        shown = screen_text(pilot)
        assert "loss #" in shown
        assert not any(char in "╭│━─▁█" for char in shown)
