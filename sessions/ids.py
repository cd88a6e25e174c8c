"""ULIDs: 26 characters that sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_CHANCE = 80  # random bits below 48 bits of milliseconds

_lock = threading.Lock()
_last = (0, 0)  # process id, last value: a forked child must not continue its parent's count


def new_ulid() -> str:
    """A new id, greater than every id this process made before, whatever the clock does."""
    global _last
    with _lock:
        fresh = int(time.time() * 1000) << _CHANCE | int.from_bytes(os.urandom(10), "big")
        pid, value = _last
        if pid == os.getpid() and fresh >> _CHANCE <= value >> _CHANCE:
            fresh = value + 1  # same millisecond, or the clock went back
        _last = (os.getpid(), fresh)
    return "".join(_DIGITS[fresh >> shift & 31] for shift in range(125, -1, -5))


def short(id: str) -> str:
    """The end of an id: enough to name by, and what is shown of it."""
    return id[-6:].lower()
