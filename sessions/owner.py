"""Who is working on an edit: a process, told apart from a later one with the same number."""

from __future__ import annotations

import os

# Start times are computed from the boot time, which moves a little when the clock is corrected.
_TOLERANCE = 2.0  # seconds


def current() -> str:
    """This process, as `pid@start` (start: seconds since the epoch)."""
    return f"{os.getpid()}@{_started(os.getpid())}"


def is_alive(owner: str) -> bool:
    """True while the process that wrote `owner` runs; a zombie does not."""
    pid, _, start = owner.partition("@")
    try:
        found = _started(int(pid))
        return found is not None and abs(found - float(start)) <= _TOLERANCE
    except ValueError:
        return False


def _started(pid: int) -> float | None:
    """When process `pid` started; None when there is no such process, or only its remains."""
    import psutil  # type: ignore[import-untyped, unused-ignore]  # slow to import, rarely needed

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None
