"""Whether the terminal's background is dark, asked of the terminal itself.

The question (OSC 11) is followed by one that every terminal answers (its type, DA1): where only
the second answer comes, nothing more is waited for. Over a slow line an answer could come when
the program no longer listens and would be taken for typing, so it is not asked through ssh.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from contextlib import suppress

PATIENCE = 0.1  # seconds
_ASK = b"\x1b]11;?\x1b\\\x1b[c"
_COLOUR = re.compile(rb"\x1b\]11;rgba?:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)")
_TYPE = re.compile(rb"\x1b\[\?[\d;]*c")
_DARK = {"0", "1", "2", "3", "4", "5", "6", "8"}  # of the sixteen colours


def is_light() -> bool:
    """False where it is dark, or cannot be known."""
    hint = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if hint.isdigit():
        return hint not in _DARK
    if "SSH_CONNECTION" in os.environ or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    with suppress(ImportError, OSError):
        return light(_asked(sys.stdin.fileno(), sys.stderr.fileno()))
    return False


def light(answer: bytes) -> bool:
    """Whether an answer to OSC 11 names a light colour (by its luminance, ITU-R BT.709)."""
    found = _COLOUR.search(answer)
    if found is None:
        return False
    red, green, blue = (int(part, 16) / (16.0 ** len(part) - 1) for part in found.groups())
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5


def _asked(source: int, sink: int) -> bytes:
    """What the terminal answers within PATIENCE seconds. Raises ImportError, OSError."""
    import termios
    import tty

    before = termios.tcgetattr(source)
    answer = b""
    try:
        tty.setcbreak(source)
        os.write(sink, _ASK)
        end = time.monotonic() + PATIENCE
        while not _TYPE.search(answer):
            left = end - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                break
            answer += os.read(source, 256)
    finally:
        termios.tcsetattr(source, termios.TCSANOW, before)
    return answer
