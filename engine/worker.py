"""One daemon thread that owns the model.

Jobs are generators of events. The thread runs them strictly one after the other, so that the
model is never edited while it generates, and is the only one that advances or closes them.
This module imports no torch: what it runs does.

A plain daemon thread, not an executor or a UI framework's worker: those are joined at exit, and
an edit in progress would then keep the program from quitting.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from .errors import LLMEditError, NoSpace, OutOfMemory, no_memory
from .events import Event, JobEnded, Problem
from .memory import MemoryMeter

log = logging.getLogger(__name__)

T = TypeVar("T")


class UnexpectedError(LLMEditError):
    """A job raised an error that was not foreseen; the cause is chained and logged."""


class Job(Generic[T]):
    """One piece of work: its events so far, and in the end its result or its error.

    events   append-only; safe to read from any thread (indexes never change)
    state    "queued", "running", then one of "done", "failed", "cancelled"
    result   what the generator returned, once the state is "done"
    error    what it raised, once the state is "failed"
    """

    def __init__(self, id: str, kind: str) -> None:
        self.id = id
        self.kind = kind
        self.events: list[Event] = []
        self.result: T | None = None
        self.error: BaseException | None = None
        self.state = "queued"
        self.started = 0.0  # time.monotonic(); 0 while queued
        self.memory: MemoryMeter | None = None  # from the start on
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.kind} {self.state} {len(self.events)} events>"

    @property
    def ended(self) -> bool:
        """True once JobEnded is among the events."""
        return self._closed

    @property
    def cancelling(self) -> bool:
        """True from `cancel` on."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the job to stop at its next event. Any thread may call it, more than once."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the job has ended; False when `timeout` seconds passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout)

    def stream(self) -> Iterator[Event]:
        """Every event from the first on, blocking; ends after JobEnded."""
        for index in itertools.count():
            with self._changed:
                self._changed.wait_for(lambda: len(self.events) > index or self._closed)  # noqa: B023
                if len(self.events) <= index:
                    return
                event = self.events[index]
            yield event

    def value(self) -> T:
        """The result, waiting for it.

        Raises what the job raised (OutOfMemory, NoSpace or UnexpectedError around an error
        without a message for people), or KeyboardInterrupt when it was cancelled.
        """
        self.wait()
        if self.state == "cancelled":
            raise KeyboardInterrupt
        if self.error is not None:
            if hasattr(self.error, "exit_code"):
                raise self.error
            known = _resource(self.error)
            if known is None:
                problem = describe(self.error)
                known = UnexpectedError(problem.message, problem.remedy)
            raise known from self.error
        return self.result  # type: ignore[return-value]

    def _append(self, event: Event) -> None:
        t = time.monotonic() - self.started if self.started else 0.0
        with self._changed:
            stamped = dataclasses.replace(event, job=self.id, seq=len(self.events), t=t)
            self.events.append(stamped)
            self._closed = isinstance(event, JobEnded)
            self._changed.notify_all()


class Worker:
    """Runs jobs one at a time on its own daemon thread.

    on_event   called on the worker's thread after each event of a job was appended; must only
               signal (it holds up the model while it runs), its errors are logged and ignored
    at_end     called on the worker's thread as its last act, after `close`
    """

    def __init__(
        self,
        on_event: Callable[[Job[Any]], None] | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._on_event = on_event
        self._at_end = at_end
        self._queue: collections.deque[tuple[Job[Any], Callable[[], Any]]] = collections.deque()
        self._idle: tuple[Job[Any], Generator[Event, None, Any]] | None = None
        self._wake = threading.Condition()
        self._current: Job[Any] | None = None
        self._closing = False
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    # -- any thread --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a job runs or waits (idle work does not count)."""
        with self._wake:
            return self._current is not None or bool(self._queue)

    @property
    def current(self) -> Job[Any] | None:
        """The job that runs now."""
        return self._current

    def submit(self, kind: str, make: Callable[[], Generator[Event, None, T]]) -> Job[T]:
        """Queue a job. `make` is called on the worker's thread when its turn comes."""
        job: Job[T] = Job(f"{kind}-{next(self._numbers)}", kind)
        with self._wake:
            if self._closing:
                raise RuntimeError("the worker is closed")
            self._queue.append((job, make))
            self._wake.notify_all()
        return job

    def set_idle(self, work: Generator[Event, None, Any]) -> Job[Any]:
        """Advance `work` a slice (up to its next yield) at a time while no job waits.

        Between slices any job goes first, so `work` must leave no hook on the model when it
        yields. It replaces, and closes, the idle work before it. Its errors are logged only.
        """
        job: Job[Any] = Job(f"idle-{next(self._numbers)}", "idle")
        with self._wake:
            replaced, self._idle = self._idle, (job, work)
            if replaced is not None:
                # Only this thread's loop may close a generator it might be advancing.
                closing: Job[Any] = Job(f"close-{replaced[0].id}", "idle")
                self._queue.append((closing, lambda: _close(*replaced)))
            self._wake.notify_all()
        return job

    def cancel(self) -> None:
        """Cancel the job that runs now, if any."""
        job = self._current
        if job is not None:
            job.cancel()

    def close(self, timeout: float = 2.0) -> bool:
        """Cancel everything and stop; False when the thread did not stop within `timeout` s.

        The thread is a daemon: one that is stuck in a long kernel does not hold up the exit.
        """
        with self._wake:
            self._closing = True
            for job, _ in self._queue:
                job.cancel()
            if self._current is not None:
                self._current.cancel()
            self._wake.notify_all()
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- the worker's thread -----------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            task = self._next_task()
            if task is None:
                break
            job, make = task
            self._run(job, make)
        if self._idle is not None:
            self._end(*self._idle, "cancelled", MemoryMeter())
        if self._at_end is not None:
            self._at_end()

    def _next_task(self) -> tuple[Job[Any], Callable[[], Any]] | None:
        """The next job; None when closed. Advances idle work while there is none."""
        while True:
            with self._wake:
                if not self._queue and not self._closing and self._idle is None:
                    self._wake.wait()
                if self._queue:
                    task = self._queue.popleft()
                    self._current = task[0]
                    return task
                if self._closing:
                    return None
                idle = self._idle
            if idle is not None:
                self._slice(*idle)

    def _slice(self, job: Job[Any], work: Generator[Event, None, Any]) -> None:
        """Advance idle work to its next yield."""
        if not job.started:
            job.started = time.monotonic()
            job.state = "running"
        try:
            self._say(job, next(work))
            return
        except StopIteration as stop:
            job.result = stop.value
            state = "done"
        except BaseException as error:
            log.warning("idle work failed", exc_info=error)
            job.error = error
            state = "failed"
        with self._wake:
            if self._idle is not None and self._idle[0] is job:
                self._idle = None
        self._end(job, work, state, MemoryMeter())

    def _run(self, job: Job[T], make: Callable[[], Generator[Event, None, T]]) -> None:
        """Run one job to its end; whatever happens, JobEnded is its last event."""
        meter = job.memory = MemoryMeter()
        job.started = time.monotonic()
        job.state = "running"
        work: Generator[Event, None, T] | None = None
        state = "cancelled"
        try:
            if not job.cancelling:
                work = make()
                state = self._advance(job, work, meter)
        except BaseException as error:
            self._fail(job, error)
            state = "failed"
        self._end(job, work, state, meter)

    def _advance(self, job: Job[T], work: Generator[Event, None, T], meter: MemoryMeter) -> str:
        while not job.cancelling:
            try:
                event = next(work)
            except StopIteration as stop:
                job.result = stop.value
                return "done"
            meter.sample()
            self._say(job, event)
        return "cancelled"

    def _end(
        self, job: Job[Any], work: Generator[Event, None, Any] | None, state: str,
        meter: MemoryMeter,
    ) -> None:  # fmt: skip
        if work is not None:
            try:
                work.close()  # runs every `finally` of the job, here and nowhere else
            except BaseException as error:
                self._fail(job, error)
                state = "failed"
        job.state = state
        seconds = time.monotonic() - job.started if job.started else 0.0
        with self._wake:  # who waits for the job finds the worker free
            self._current = None
        self._say(job, JobEnded(state=state, seconds=seconds, peak_memory=meter.peak()))

    def _fail(self, job: Job[Any], error: BaseException) -> None:
        job.error = error
        problem = describe(error)
        if problem.exit_code == 1 and not hasattr(error, "exit_code"):
            log.error("job %s failed", job.id, exc_info=error)
        else:
            log.info("job %s failed: %s", job.id, problem.message, exc_info=error)
        self._say(job, problem)

    def _say(self, job: Job[Any], event: Event) -> None:
        job._append(event)
        if self._on_event is not None:
            try:
                self._on_event(job)
            except Exception:
                log.exception("the listener of job %s failed", job.id)


def describe(error: BaseException) -> Problem:
    """Any error as a Problem; one with `message`, `remedy`, `exit_code` speaks for itself."""
    if hasattr(error, "exit_code") and hasattr(error, "message"):
        return Problem(
            error=type(error).__name__,
            message=str(error.message),
            remedy=str(getattr(error, "remedy", "")),
            exit_code=int(error.exit_code),
        )
    known = _resource(error)
    if known is not None:
        return describe(known)
    text = str(error).strip().splitlines()
    shown = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return Problem(
        error=type(error).__name__,
        message=f"unexpected error: {shown}",
        remedy="The traceback is in the log.",
    )


def _resource(error: BaseException) -> LLMEditError | None:
    """The error of ours for memory or disk that ran out."""
    if no_memory(error):
        return OutOfMemory(
            "out of memory.",
            "Try a smaller model, --dtype bf16 or, on a GPU, --device cpu; of many facts fewer "
            "at a time: --hp together=1, or a smaller file.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({error.filename})" if error.filename else ""
        return NoSpace(f"no space left on the disk{place}.", "Free some and try again.")
    return None


def _close(job: Job[Any], work: Generator[Event, None, Any]) -> Generator[Event, None, None]:
    """A job that closes idle work which was replaced."""
    work.close()
    if not job.ended:
        job.state = "cancelled"
        job._append(JobEnded(state="cancelled", seconds=time.monotonic() - job.started))
    yield from ()
