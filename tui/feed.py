"""From the engine's thread to the screen: which jobs have said something new.

The worker only signals; the data stays in each job's append-only event list. The screen looks a
few times a second, so no event is lost and nothing is drawn more often than needed.
"""

from __future__ import annotations

from typing import Any

from textual.message import Message

from engine.events import Event, JobEnded
from engine.worker import Job


class JobChanged(Message, bubble=False):
    """A job has a new event. Posted from the engine's thread; carries no data of its own."""

    def __init__(self, job: Job[Any]) -> None:
        super().__init__()
        self.job = job

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, JobChanged) and message.job is self.job


class Feed:
    """How far each job has been read. Jobs that have ended are never read again."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[Job[Any], int]] = {}
        self._ended: set[str] = set()

    def add(self, job: Job[Any]) -> None:
        """Follow a job from its first event on; a job that has ended is ignored."""
        if job.id not in self._ended:
            self._read.setdefault(job.id, (job, 0))

    def drain(self) -> list[tuple[Job[Any], list[Event]]]:
        """The jobs with events that were not seen yet, in the order they were added."""
        fresh = []
        for name, (job, seen) in list(self._read.items()):
            events = job.events[seen:]
            if not events:
                continue
            self._read[name] = (job, seen + len(events))
            if isinstance(events[-1], JobEnded):
                del self._read[name]
                self._ended.add(name)
            fresh.append((job, events))
        return fresh

    @property
    def active(self) -> list[Job[Any]]:
        """The jobs that have not ended, as far as the screen knows."""
        return [job for job, _ in self._read.values()]
