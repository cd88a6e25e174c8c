"""Blocking work of other libraries, as a generator of Loading events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from .events import Event, Loading

T = TypeVar("T")

_INTERVAL = 0.1  # seconds between events


class Stopped(BaseException):
    """Raised inside the work at its next progress report when it is no longer wanted.

    Not an Exception: libraries that catch those must not swallow it.
    """


class Progress:
    """What the work tells about itself, and whether it should go on."""

    def __init__(self, stage: str, total: float = 0, unit: str = "") -> None:
        self.stage = stage
        self.done = 0.0
        self.total = total
        self.unit = unit
        self.stop = threading.Event()

    def advance(self, amount: float = 1) -> None:
        """Raises Stopped when the generator has been closed."""
        if self.stop.is_set():
            raise Stopped
        self.done += amount

    def event(self) -> Loading:
        return Loading(stage=self.stage, done=self.done, total=self.total, unit=self.unit)


def in_thread(
    work: Callable[[], T],
    progress: Progress,
    *,
    measure: Callable[[], float] | None = None,
) -> Generator[Event, None, T]:
    """The result of `work()`, run in a thread, with an event ten times a second.

    measure: how much is done, for work that cannot call `progress.advance`. Closing the
    generator asks the work to stop and waits until it has.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=run, name=f"llm-edit {progress.stage}", daemon=True)
    thread.start()
    try:
        said = None
        while thread.is_alive():
            if measure:
                progress.done = measure()
            now = progress.event()
            if now != said:
                yield now
                said = now
            thread.join(_INTERVAL)
    finally:
        progress.stop.set()
        thread.join()
    if failure:
        raise failure[0]
    if said != progress.event():
        yield progress.event()
    return outcome[0]


class Bar:
    """Stands in for a tqdm bar: iterates, counts into a Progress, prints nothing."""

    def __init__(self, progress: Progress, iterable: Any = None, total: float | None = None):
        self._progress = progress
        self._iterable = iterable
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.n = 0.0
        self.total = total
        progress.done, progress.total = 0, total or 0

    def __iter__(self) -> Any:
        for item in self._iterable:
            yield item
            self.update()

    def update(self, n: float = 1) -> None:
        self.n += n
        self._progress.advance(n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None: ...

    def set_description(self, *_: Any, **__: Any) -> None: ...

    def set_postfix(self, *_: Any, **__: Any) -> None: ...


def only_logging(library: str) -> None:
    """A library's remarks go to logging, not to the terminal under a running screen."""
    logger = logging.getLogger(library)
    logger.handlers = [logging.NullHandler()]
    logger.propagate = True
