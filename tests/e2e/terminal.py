"""A terminal that a test types into and reads: tmux on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISSING = "" if shutil.which("tmux") else "tmux is not installed"


class Terminal:
    """One program on a screen of its own.

    columns, rows  of the screen
    seen           every screen that was read, oldest first
    """

    def __init__(self, folder: Path, columns: int = 120, rows: int = 36) -> None:
        self._socket = folder / "tmux"
        self._code = folder / "code"
        self._size = ("-x", str(columns), "-y", str(rows))
        self.seen: list[str] = []

    def start(self, *arguments: str) -> None:
        """Run llm-edit with these arguments."""
        self.close()
        self._code.unlink(missing_ok=True)
        program = " ".join([sys.executable, "-m", "llm_edit", *arguments])
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "TERM": "xterm-256color"}
        for name in ("TMUX", "NO_COLOR", "COLUMNS", "LINES"):  # the size is tmux's to say
            environment.pop(name, None)
        command = (
            f"cd {ROOT} && {program}; echo $? > {self._code}.new; mv {self._code}.new {self._code}"
        )
        self._tmux("-f", os.devnull, "new-session", "-d", *self._size, command, env=environment)

    def close(self) -> None:
        self._tmux("kill-server", check=False)

    # -- typing ------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Keys as tmux names them: F2, C-q, Enter, Space."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    # -- reading -----------------------------------------------------------------------------

    def read(self) -> str:
        """What is on the screen now; "" once the program has ended."""
        text = self._tmux("capture-pane", "-p", check=False)
        self.seen.append(text)
        return text

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The first screen on which all of the words stand. Raises AssertionError."""
        return self.wait_until(lambda text: all(word in text for word in words), words, seconds)

    def wait_until(
        self, found: Callable[[str], bool], what: Sequence[str] | str, seconds: float = 60
    ) -> str:
        end = time.monotonic() + seconds
        while True:
            text = self.read()
            if found(text):
                return text
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}\n{text}"
            time.sleep(0.1)

    def ended(self, seconds: float = 5) -> int:
        """The exit code of the program. Raises AssertionError when it does not end in time."""
        end = time.monotonic() + seconds
        while not self._code.exists():
            assert time.monotonic() < end, f"still running after {seconds:g} s\n{self.read()}"
            time.sleep(0.05)
        return int(self._code.read_text())

    def _tmux(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        run = ["tmux", "-S", str(self._socket), *command]
        done = subprocess.run(run, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout
