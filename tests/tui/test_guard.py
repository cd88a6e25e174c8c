"""Nothing but the screen reaches the terminal while the guard is on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from terminal import on_terminal, read_until

from tui.guard import LogTail
from tui.launch import log_folder

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, sys, logging, warnings
from pathlib import Path
from tui.guard import descriptor_guard
print("before", flush=True)
with descriptor_guard(Path(sys.argv[1]) / "logs" / "terminal.log"):
    os.write(1, b"c-level one\\n")
    os.write(2, b"c-level two\\n")
    os.system("echo from a child")
    print("python", flush=True)
    logging.getLogger("lib").warning("logged")
    sys.__stderr__.write("the screen")
    sys.__stderr__.flush()
    sys.__stdout__.flush()
print("after", flush=True)
os.write(2, b"|normal again")
"""


def test_stray_output_goes_to_the_log_and_the_streams_come_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "the screen|normal again"
    log = (tmp_path / "logs" / "terminal.log").read_text()
    for text in ("c-level one", "c-level two", "from a child", "python", "logged"):
        assert text in log


def test_the_streams_come_back_after_an_error(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\nfrom tui.guard import descriptor_guard\n"
        "try:\n    with descriptor_guard(pathlib.Path(sys.argv[1]) / 'x.log'):\n"
        "        raise RuntimeError\nexcept RuntimeError:\n    print('out')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "out\n"


ENGINE = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
from scripted import ScriptedAssistant
from tui.app import EditApp
from tui.guard import descriptor_guard

class Noisy(ScriptedAssistant):
    def _pass(self, point, seconds=0.0):  # on the engine's thread, before every event
        os.write(1, b"NOISE to one\\n")
        os.write(2, b"NOISE to two\\r\\n" * 3)
        print("NOISE in python", flush=True)
        super()._pass(point, seconds)

with descriptor_guard(Path({log!r})) as stray:
    app = EditApp(Noisy, logs=(stray,))
    app.run()
    app.assistant.close()
print("LEFT", flush=True)
"""


def test_an_engine_that_writes_to_the_terminal_does_not_reach_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "terminal.log"
    program = ENGINE.format(root=str(ROOT), here=str(ROOT / "tests" / "tui"), log=str(log))
    with on_terminal(program) as (terminal, _):
        read_until(terminal, b"cpu", 30)  # loaded
        os.write(terminal, b"Where is the Space Needle?\r")
        seen = read_until(terminal, b"metres", 30)
        assert b"NOISE" not in seen
        os.write(terminal, b"\x1b[17~" * 2)  # F6: the edit, then the log, of which it is a line
        read_until(terminal, b"NOISE", 30)
        os.write(terminal, b"\x11")  # Ctrl+Q
        read_until(terminal, b"LEFT", 10)
    assert log.read_text().count("NOISE to two") >= 3 * log.read_text().count("NOISE to one") > 0


def test_the_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = LogTail(path)
    assert tail.lines() == []
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert tail.lines() == ["one"]
        file.write("o\n10%\r50%\r100%\n\n")
    assert tail.lines() == ["two", "100%"]
    path.write_text("anew\n")
    assert tail.lines() == ["anew"]
    path.unlink()
    assert tail.lines() == []


def test_a_home_that_cannot_be_written_has_its_logs_elsewhere(tmp_path: Path) -> None:
    assert log_folder(tmp_path / "home") == tmp_path / "home" / "logs"
    (tmp_path / "file").touch()
    elsewhere = log_folder(tmp_path / "file")
    assert elsewhere.is_dir()
    assert tmp_path not in elsewhere.parents
