"""How much memory an edit takes at its highest."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..memory import MemoryMeter

_SAMPLE_S = 0.005


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yields a function: the peak in bytes above the start of the block, once it has ended.

    Resident memory (or the accelerator's), looked at every 5 ms besides the kernel's own high
    water mark. Free memory that the allocator keeps is given back first, so that it does not
    hide what the block takes.
    """
    gc.collect()
    trim()
    meter = MemoryMeter()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            meter.sample()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    found: list[int] = []
    try:
        yield lambda: found[0]
    finally:
        found.append(meter.peak())
        over.set()
        watcher.join()


def trim() -> None:
    """Return freed memory to the system where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
