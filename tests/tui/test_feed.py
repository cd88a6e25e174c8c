"""Reading jobs: nothing is lost, nothing is read twice, ended jobs stay ended."""

from __future__ import annotations

import threading
from collections.abc import Generator

from engine.events import Event, JobEnded, Note
from engine.worker import Worker
from tui.feed import Feed


def test_every_event_is_read_once_and_ended_jobs_are_ignored() -> None:
    go = threading.Event()

    def work() -> Generator[Event, None, int]:
        yield Note(text="one")
        go.wait(60)
        yield Note(text="two")
        return 1

    worker, feed = Worker(), Feed()
    job = worker.submit("note", work)
    feed.add(job)
    read: list[Event] = []
    while not read:
        read += [event for _, events in feed.drain() for event in events]
    assert feed.active == [job]
    go.set()
    assert job.wait(60)
    read += [event for _, events in feed.drain() for event in events]
    assert read == job.events
    assert isinstance(read[-1], JobEnded)
    feed.add(job)  # a signal that comes late
    assert feed.drain() == []
    assert feed.active == []
    worker.close()
