"""Measures the full screen from outside, as a terminal sees it.

    python scripts/measure_ui.py [--runs 5] [--json]

Each figure is the median (for keys the median and the 95th percentile) of runs of the real program
with the real default model on a pseudo-terminal of 120x36, in a home folder of its own; the caches
of models and statistics are the user's. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sessions.store import Store  # noqa: E402

SIZE = (36, 120)
QUESTION = "What is the capital of Australia?"
# Characters that nothing on the screen shows: seeing one means that its key was drawn.
KEYS = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
MESSAGES = 500
CONTROL = re.compile(r"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[()][AB012]")
QUERIES = {
    b"\x1b]11;?": b"\x1b]11;rgb:1111/1111/1111\x1b\\",  # the background is dark
    b"\x1b[c": b"\x1b[?62;c",
}


class Screen:
    """The program on a pseudo-terminal; times are seconds since it was started."""

    def __init__(self, home: Path, *arguments: str) -> None:
        controller, terminal = pty.openpty()
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "LLM_EDIT_HOME": str(home)}
        env.pop("NO_COLOR", None)
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "llm_edit", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, env=env, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self._terminal = controller
        self._seen = b""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._terminal)

    @property
    def text(self) -> str:
        """What was drawn since the last `forget`, without control sequences."""
        return CONTROL.sub("", self._seen.decode("utf-8", "ignore"))

    def forget(self) -> None:
        self._seen = b""

    def type(self, text: str) -> float:
        """Press keys; the moment they were sent."""
        os.write(self._terminal, text.encode())
        return time.monotonic()

    def until(self, done: Callable[[str], object], seconds: float = 120.0) -> float:
        """Read until `done` of the text; the moment it was there. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not done(self.text):
            left = end - time.monotonic()
            if left <= 0 or self.child.poll() is not None:
                raise TimeoutError(f"not seen; the last was {self.text[-600:]!r}")
            if select.select([self._terminal], [], [], min(left, 1.0))[0]:
                fresh = os.read(self._terminal, 65536)
                self._seen += fresh
                for query, answer in QUERIES.items():
                    if query in fresh:
                        os.write(self._terminal, answer)
        return time.monotonic()

    def shows(self, text: str, seconds: float = 120.0) -> float:
        """Seconds from the start until this text is drawn."""
        return self.until(lambda seen: text in seen, seconds) - self.began

    def rest(self, seconds: float) -> None:
        """Read what comes for so long."""
        end = time.monotonic() + seconds
        with suppress(TimeoutError):
            self.until(lambda seen: time.monotonic() >= end, seconds)

    @property
    def processor(self) -> float:
        """Seconds of processor time that the process has used."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6  # type: ignore[index]


def asked_and_corrected(home: Path) -> dict[str, list[float]]:
    """One run: start, ask, correct while typing."""
    with Screen(home, "chat", "--model", "smollm2-135m") as screen:
        painted = screen.shows("Ask something")
        busy = screen.processor
        ready = screen.shows("cpu ")
        screen.rest(1.0)  # the first idle work has begun, as it has for a person who types
        screen.forget()
        sent = screen.type(QUESTION + "\r")
        first = screen.until(lambda seen: re.search(r"\bmodel\b", seen)) - sent
        screen.until(lambda seen: re.search(r"\d\.\d s", seen))
        screen.forget()
        screen.type("/fix Australia => Melbourne\r")
        screen.shows("editing")
        waits = []
        for key in KEYS:
            if "Edit #1" in screen.text:
                break
            sent = screen.type(key)
            waits.append(screen.until(lambda seen, key=key: key in seen) - sent)
            screen.rest(0.12)  # about eight keys a second
    return {
        "paint": [painted],
        "paint-cpu": [busy],
        "ready": [ready],
        "first": [first],
        "keys": waits,
    }


def long_session(home: Path) -> str:
    """A session of 500 messages about the default model; its id."""
    command = [sys.executable, "-m", "llm_edit", "chat", "--model", "smollm2-135m"]
    subprocess.run(
        command, input="Hello\n", text=True, check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "LLM_EDIT_HOME": str(home)},
    )  # fmt: skip
    with Store.open(home) as store:
        session = store.latest_session()
        assert session is not None
        for number in range(2, MESSAGES // 2 + 1):
            store.add_message(session.id, "user", f"Question {number} of a long conversation?")
            answer = f"Answer {number}. " + "It goes on for a line or two, as answers do. " * 3
            store.add_message(session.id, "assistant", answer.strip(), tokens=40, seconds=1.0)
        return session.id


def opened(home: Path, session: str) -> dict[str, list[float]]:
    """One run: a session of 500 messages, opened to chat and to be looked at."""
    last = f"Answer {MESSAGES // 2}."
    with Screen(home, "chat", "--session", session) as screen:
        screen.shows("Ask something")
        shown = screen.shows(last)
        busy = screen.processor
    with Screen(home, "replay", session) as screen:
        looked = screen.shows("llm-edit")
        screen.rest(1.0)
        memory = screen.memory
    return {"long": [shown], "long-cpu": [busy], "replay": [looked], "memory": [memory]}


def gathered(runs: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, values in run.items():
            found.setdefault(name, []).extend(values)
    return found


def high(values: list[float]) -> float:
    """The 95th percentile."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


ROWS = (
    ("paint", "start of the process to first paint", "s"),
    ("paint-cpu", "the same, processor time", "s"),
    ("ready", "start of the process to ready", "s"),
    ("first", "Enter to the first words of the answer on the screen", "s"),
    ("keys", "a key to its character on the screen, while an edit runs", "ms"),
    ("long", "start of the process to the last of 500 messages", "s"),
    ("long-cpu", "the same, processor time", "s"),
    ("replay", "`replay` of that session: start to first paint", "s"),
    ("memory", "memory of the interface alone (`replay` of it: no model, no torch)", "MB"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        session = long_session(home)
        for _ in range(chosen.runs):
            with tempfile.TemporaryDirectory() as empty:
                runs.append(asked_and_corrected(Path(empty)))
            runs.append(opened(home, session))
            sys.stderr.write(f"{ {k: [round(v, 3) for v in vs] for k, vs in runs[-2].items()} }\n")
    found = gathered(runs)
    if chosen.json:
        print(json.dumps(found))
        return 0
    print("| what | median | p95 | n |\n|---|---|---|---|")
    for name, words, unit in ROWS:
        values = [v * 1000 if unit == "ms" else v for v in found[name]]
        digits = 2 if unit == "s" else 0
        middle, top = statistics.median(values), high(values)
        print(f"| {words} | {middle:.{digits}f} {unit} | {top:.{digits}f} {unit} | {len(values)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
