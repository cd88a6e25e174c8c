"""A program on a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def on_terminal(program: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Python source, run on a pseudo terminal of 100x30: the terminal, and the process."""
    controller, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        yield controller, child
    finally:
        child.kill()
        child.wait()
        os.close(controller)


def read_until(terminal: int, text: bytes, seconds: float) -> bytes:
    """What the program writes, until `text` is in it."""
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        left = end - time.monotonic()
        assert left > 0, f"{text!r} did not appear in {seen[-2000:]!r}"
        if select.select([terminal], [], [], left)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    return seen
