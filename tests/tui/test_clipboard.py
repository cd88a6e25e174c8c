"""Copying says what is known, and no more."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from conftest import Opened
from scenes import QUESTION, ask, settle
from scripted import ANSWERS
from test_chat import texts

from tui import clipboard
from tui.clipboard import Copied, Tool, code_of, copy, sequence


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clipboard program that keeps its text in a file; `broken` makes it fail."""
    held = tmp_path / "held"
    for name, body in (
        ("take", f"test ! -e {tmp_path}/broken && cat > {held}"),
        ("give", f"cat {held}"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    tool = Tool((str(tmp_path / "take"),), (str(tmp_path / "give"),), "SOME_DISPLAY")
    monkeypatch.setattr(clipboard, "TOOLS", (tool,))
    monkeypatch.setenv("SOME_DISPLAY", ":0")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("STY", raising=False)
    return tmp_path


def test_what_a_program_took_is_read_back(tools: Path) -> None:
    terminal = io.StringIO()
    found = copy("Sydney, größer\n", terminal.write)
    assert found == Copied(str(tools / "take"), True)
    assert found.sentence.startswith("Copied (")
    assert (tools / "held").read_text() == "Sydney, größer\n"
    assert terminal.getvalue() == ""


def test_what_reads_back_otherwise_is_not_called_copied(tools: Path) -> None:
    (tools / "give").write_text("#!/bin/sh\necho other\n")
    found = copy("Sydney", io.StringIO().write)
    assert not found.verified
    assert "cannot be verified" in found.sentence


@pytest.mark.parametrize("why", ["broken", "no display", "hangs"])
def test_the_terminal_is_asked_when_no_program_can(
    tools: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "broken":
        (tools / "broken").touch()
    elif why == "no display":
        monkeypatch.delenv("SOME_DISPLAY")
    else:
        monkeypatch.setattr(clipboard, "PATIENCE", 0.1)
        (tools / "take").write_text("#!/bin/sh\nexec sleep 5\n")
    terminal = io.StringIO()
    found = copy("Sydney", terminal.write)
    encoded = base64.b64encode(b"Sydney").decode()
    assert terminal.getvalue() == f"\x1b]52;c;{encoded}\a"
    assert not found.verified
    assert "/save-answer FILE" in found.sentence


def test_multiplexers_hand_it_on() -> None:
    bare = sequence("x", {})
    doubled = bare.replace("\x1b", "\x1b\x1b")
    assert sequence("x", {"TMUX": "/tmp/t"}) == f"{bare}\x1bPtmux;{doubled}\x1b\\"
    assert sequence("x", {"TERM": "screen.xterm", "STY": "1.a"}) == f"\x1bP{bare}\x1b\\"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no code", ""),
        ("a\n```python\nx = 1\n```\nb", "x = 1"),
        ("```\none\n```\n~~~sh\ntwo\n\n~~~", "one\n\ntwo\n"),
        ("```\ncut off", "cut off"),
    ],
)
def test_code_between_fences(text: str, code: str) -> None:
    assert code_of(text) == code


async def test_copy_takes_a_number_and_code(opened: Opened, monkeypatch) -> None:
    monkeypatch.setitem(ANSWERS, "code?", "so:\n```\nprint(1)\n```")
    async with opened() as pilot:
        app = pilot.app
        await ask(pilot)
        await ask(pilot, "code?")
        app.send("/copy 1")
        assert app.clipboard == ANSWERS[QUESTION]
        app.send("/copy code")
        assert app.clipboard == "print(1)"
        app.send("/copy 1 code")
        app.send("/copy 9")
        await settle(pilot)
        assert texts(pilot, "note") == [
            "there is no code between ``` in that answer.",
            "there is no answer '9': they count from 1 to 2.",
        ]


async def test_an_answer_is_saved_and_nothing_is_overwritten(opened: Opened, tmp_path) -> None:
    file = tmp_path / "an answer.txt"
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, "another")
        pilot.app.send(f"/save-answer 1 {file}")
        pilot.app.send(f"/save-answer {file}")
        pilot.app.send(f"/save-answer {tmp_path}/no/folder")
        await settle(pilot)
        assert file.read_text() == ANSWERS[QUESTION] + "\n"
        said = texts(pilot, "note")
        assert said[0] == f"Written to {file}."
        assert said[1] == f"{file} is there already. Name another file."
        assert "cannot be written (No such file or directory)" in said[2]
