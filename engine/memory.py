"""How much memory a job took above what was in use when it began. Imports no torch."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Peak memory since it was made, in bytes above the start.

    Accelerator memory where torch is loaded and uses one, else resident memory of the process.
    Linux keeps the highest resident size; it can usually be reset, and the peak is then exact.
    Where it cannot, the peak is the highest of the samples taken at the job's events. Systems
    without /proc report 0: not measured.
    """

    def __init__(self) -> None:
        self._cuda = _cuda()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
            self._start = int(self._cuda.memory_allocated())
            return
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # 5: forget the highest resident size (proc(5))
        self._start, self._high_before = _resident()
        self._sampled = self._start

    def sample(self) -> None:
        """Look at the memory in use now."""
        if self._cuda is None:
            self._sampled = max(self._sampled, _resident()[0])

    def peak(self) -> int:
        if self._cuda is not None:
            return max(0, int(self._cuda.max_memory_allocated()) - self._start)
        self.sample()
        high = _resident()[1]
        grew = high if high > self._high_before else 0
        return max(0, max(self._sampled, grew) - self._start)


def _resident() -> tuple[int, int]:
    """Resident size of this process, now and at its highest, in bytes."""
    now = high = 0
    try:
        with _STATUS.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    high = int(line.split()[1]) * 1024
                elif line.startswith("VmRSS:"):
                    now = int(line.split()[1]) * 1024
                    break
    except OSError:
        pass
    return now, high


def _cuda() -> Any | None:
    """torch.cuda, if torch is loaded already and has used a device."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
