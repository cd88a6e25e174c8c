"""The engine's thread: order, cancellation, failures, idle work."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Generator, Iterator

import pytest

from engine.errors import BadRequest, MissingResource, OutOfMemory
from engine.events import Event, JobEnded, Note, Problem
from engine.worker import UnexpectedError, Worker, describe

WAIT = 60.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def notes(*texts: str, result: object = None) -> Generator[Event, None, object]:
    for text in texts:
        yield Note(text=text)
    return result


def endless(started: threading.Event, closed: threading.Event) -> Generator[Event, None, None]:
    try:
        while True:
            started.set()
            yield Note(text="more")
            time.sleep(0.001)
    finally:
        closed.set()


def test_events_are_stamped_and_end_with_job_ended(worker: Worker) -> None:
    job = worker.submit("ask", lambda: notes("a", "b", result=7))
    events = list(job.stream())
    assert [e.kind for e in events] == ["Note", "Note", "JobEnded"]
    assert [e.seq for e in events] == [0, 1, 2]
    assert {e.job for e in events} == {job.id}
    assert 0 <= events[0].t <= events[1].t <= events[2].t
    assert (job.state, job.value()) == ("done", 7)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].state == "done"


def test_a_stream_can_be_read_again_and_late(worker: Worker) -> None:
    job = worker.submit("ask", lambda: notes("a"))
    assert job.wait(WAIT)
    assert list(job.stream()) == list(job.stream()) == job.events


def test_jobs_run_one_at_a_time_in_order(worker: Worker) -> None:
    log: list[str] = []
    go = threading.Event()

    def work(name: str) -> Generator[Event, None, None]:
        log.append(f"{name} begins")
        yield Note(text=name)
        go.wait(WAIT)
        log.append(f"{name} ends")

    jobs = [worker.submit("ask", lambda n=n: work(n)) for n in "abc"]
    assert worker.busy
    go.set()
    assert all(job.wait(WAIT) for job in jobs)
    assert log == [f"{n} {what}" for n in "abc" for what in ("begins", "ends")]
    assert not worker.busy


def test_all_work_runs_on_one_daemon_thread(worker: Worker) -> None:
    def where() -> Generator[Event, None, threading.Thread]:
        yield Note(text="here")
        return threading.current_thread()

    threads = {worker.submit("ask", where).value() for _ in range(3)}
    assert len(threads) == 1
    thread = threads.pop()
    assert thread.daemon
    assert thread is not threading.current_thread()


def test_cancel_closes_the_generator_on_its_own_thread(worker: Worker) -> None:
    started, closed = threading.Event(), threading.Event()
    job = worker.submit("correct", lambda: endless(started, closed))
    assert started.wait(WAIT)
    job.cancel()
    assert job.wait(WAIT)
    assert closed.is_set()
    assert job.state == "cancelled"
    assert isinstance(job.events[-1], JobEnded)
    with pytest.raises(KeyboardInterrupt):
        job.value()


def test_a_queued_job_that_is_cancelled_never_begins(worker: Worker) -> None:
    started, closed, begun = threading.Event(), threading.Event(), threading.Event()
    running = worker.submit("ask", lambda: endless(started, closed))
    assert started.wait(WAIT)

    def never() -> Generator[Event, None, None]:
        begun.set()
        yield Note(text="no")

    waiting = worker.submit("ask", never)
    waiting.cancel()
    running.cancel()
    assert waiting.wait(WAIT)
    assert waiting.state == "cancelled"
    assert [e.kind for e in waiting.events] == ["JobEnded"]
    assert not begun.is_set()


def test_a_known_error_becomes_a_problem_and_the_thread_lives(worker: Worker) -> None:
    def bad() -> Generator[Event, None, None]:
        yield Note(text="so far")
        raise BadRequest("the target is empty.", "Type one.")

    job = worker.submit("correct", bad)
    with pytest.raises(BadRequest):
        job.value()
    problem = job.events[-2]
    assert isinstance(problem, Problem)
    assert (problem.error, problem.message, problem.remedy, problem.exit_code) == (
        "BadRequest", "the target is empty.", "Type one.", 2,
    )  # fmt: skip
    assert job.state == "failed"
    assert worker.submit("ask", lambda: notes(result=1)).value() == 1


def test_errors_of_other_packages_speak_for_themselves(worker: Worker) -> None:
    class SessionGone(Exception):
        message, remedy, exit_code = "gone", "look elsewhere", 3

    def bad() -> Generator[Event, None, None]:
        raise SessionGone
        yield

    job = worker.submit("ask", bad)
    assert job.wait(WAIT)
    problem = job.events[0]
    assert isinstance(problem, Problem)
    assert (problem.message, problem.exit_code) == ("gone", 3)


def test_an_unforeseen_error_is_logged_with_its_traceback(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def bad() -> Generator[Event, None, None]:
        raise ZeroDivisionError("one over nothing")
        yield

    with caplog.at_level(logging.ERROR, "engine.worker"):
        job = worker.submit("ask", bad)
        with pytest.raises(UnexpectedError, match="one over nothing") as caught:
            job.value()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "Traceback" in caplog.text
    assert worker.submit("ask", lambda: notes(result=1)).value() == 1


def test_a_generator_that_fails_while_it_is_closed_is_a_failure(worker: Worker) -> None:
    started = threading.Event()

    def stubborn() -> Generator[Event, None, None]:
        try:
            while True:
                started.set()
                yield Note(text="more")
        finally:
            raise RuntimeError("could not restore")

    job = worker.submit("correct", stubborn)
    assert started.wait(WAIT)
    job.cancel()
    assert job.wait(WAIT)
    assert job.state == "failed"
    assert [e.kind for e in job.events[-2:]] == ["Problem", "JobEnded"]


def test_memory_and_disk_errors_are_resources() -> None:
    class OutOfMemoryError(RuntimeError):
        """Named like torch's."""

    for error in (MemoryError(), OutOfMemoryError("CUDA out of memory")):
        assert describe(error).error == OutOfMemory.__name__
        assert describe(error).exit_code == MissingResource.exit_code
    full = describe(OSError(errno.ENOSPC, "No space left on device", "/home/x"))
    assert full.exit_code == MissingResource.exit_code
    assert "/home/x" in full.message


def test_the_listener_hears_every_event_and_cannot_break_a_job() -> None:
    heard: list[int] = []

    def listen(job: object) -> None:
        heard.append(len(job.events))  # type: ignore[attr-defined]
        raise RuntimeError("the screen is gone")

    worker = Worker(listen)
    job = worker.submit("ask", lambda: notes("a", "b", result=3))
    assert job.value() == 3
    worker.close()
    assert heard == [1, 2, 3]


def test_idle_work_runs_between_jobs_and_gives_way(worker: Worker) -> None:
    order: list[str] = []
    began, asked = threading.Event(), threading.Event()

    def idle() -> Generator[Event, None, str]:
        for i in range(3):
            order.append(f"idle {i}")
            began.set()
            asked.wait(WAIT)
            yield Note(text=str(i))
        return "ready"

    def job() -> Generator[Event, None, None]:
        order.append("job")
        yield Note(text="job")

    work = worker.set_idle(idle())
    assert began.wait(WAIT)
    submitted = worker.submit("ask", job)
    asked.set()
    assert submitted.wait(WAIT)
    assert work.wait(WAIT)
    assert (work.state, work.result) == ("done", "ready")
    assert order == ["idle 0", "job", "idle 1", "idle 2"]


def test_new_idle_work_closes_the_old(worker: Worker) -> None:
    started, closed = threading.Event(), threading.Event()
    old = worker.set_idle(endless(started, closed))
    assert started.wait(WAIT)
    new = worker.set_idle(notes("a", result=1))
    assert new.wait(WAIT)
    assert old.wait(WAIT)
    assert closed.is_set()
    assert (old.state, new.result) == ("cancelled", 1)


def test_failing_idle_work_only_logs(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    def idle() -> Generator[Event, None, None]:
        raise OSError("no network")
        yield

    with caplog.at_level(logging.WARNING, "engine.worker"):
        work = worker.set_idle(idle())
        assert work.wait(WAIT)
    assert work.state == "failed"
    assert "no network" in caplog.text
    assert worker.submit("ask", lambda: notes(result=1)).value() == 1


def test_close_cancels_what_runs_and_what_waits_and_acts_last() -> None:
    started, closed, last = threading.Event(), threading.Event(), threading.Event()
    worker = Worker(at_end=last.set)
    running = worker.submit("correct", lambda: endless(started, closed))
    waiting = worker.submit("ask", lambda: notes("a"))
    assert started.wait(WAIT)
    assert worker.close(WAIT)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    assert closed.is_set()
    assert last.is_set()
    with pytest.raises(RuntimeError):
        worker.submit("ask", lambda: notes("a"))


def test_peak_memory_is_measured(worker: Worker) -> None:
    size = 64 << 20

    def hungry() -> Generator[Event, None, None]:
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])  # touch every page
        yield Note(text="held")
        del block

    job = worker.submit("correct", hungry)
    ended = list(job.stream())[-1]
    assert isinstance(ended, JobEnded)
    assert ended.peak_memory >= 0.9 * size
    assert ended.peak_memory < 4 * size
