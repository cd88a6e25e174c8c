"""Following jobs from a line-oriented terminal or a pipe.

Standard output carries data (answers, verdicts, tables), standard error narration. Progress is
one line that rewrites itself on a terminal, and otherwise now and then a line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO, TypeVar

from engine.events import EditStep, Event, Loading, Note, Problem
from engine.worker import Job

from .narrate import STAGES, narrate, progress
from .pace import STEPS, Pace, about

T = TypeVar("T")

CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
SPARSE = 10.0  # seconds between lines of progress that cannot be rewritten
SMOOTH = 0.1  # seconds between rewrites


class Narrator:
    """Writes what happens to `err`.

    verbose    the researcher's log instead of progress
    rewriting  progress may go back to the beginning of its line
    quiet      nothing at all, problems apart
    """

    def __init__(
        self, err: TextIO, *, verbose: bool = False, rewriting: bool = False, quiet: bool = False
    ) -> None:
        self._err = err
        self._verbose = verbose
        self._rewriting = rewriting
        self._quiet = quiet
        self._width = 0  # of the progress line that is on the screen
        self._stage = ""
        self._text = ""
        self._written = 0.0
        self._pace = Pace()

    def feed(self, event: Event, kind: str) -> None:
        """Say what an event of a job of this kind is worth."""
        if isinstance(event, Problem) or self._quiet:
            return  # problems are said by who waits for the job
        if self._verbose:
            for line in narrate(event):
                self.line(line)
        elif isinstance(event, Note) and kind == "load":
            self.line(event.text)
        elif isinstance(event, Loading):
            self._progress(event, event.stage, progress(event))
        elif isinstance(event, EditStep):
            values = f" (loss {event.loss:.3g}, P(new) {event.p_new:.2f})"
            self._progress(event, STEPS, f"step {event.step} of {event.of}", values)

    def line(self, text: str) -> None:
        """A line of its own."""
        self.clear()
        print(text, file=self._err, flush=True)

    def clear(self) -> None:
        """Take the progress line off the screen."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._err, flush=True)
            self._width = 0
        self._stage = ""

    def _progress(self, event: Loading | EditStep, stage: str, text: str, more: str = "") -> None:
        now = time.monotonic()
        self._pace.feed(event, event.t if event.job else now)
        text = ", ".join(filter(None, (text, about(self._pace.left())))) + more
        begun = stage != self._stage
        pause = SMOOTH if self._rewriting else SPARSE
        if not begun and (text == self._text or now - self._written < pause):
            return
        self._stage, self._text, self._written = stage, text, now
        if self._rewriting:
            text = text[:100]
            print("\r" + text.ljust(self._width), end="", file=self._err, flush=True)
            self._width = max(self._width, len(text))
        else:
            print(STAGES.get(stage, text) if begun else text, file=self._err, flush=True)


def follow(job: Job[T], narrator: Narrator, listeners: Sequence[Any] = ()) -> Job[T]:
    """Narrate a job to its end. Ctrl+C cancels it; a second one is raised.

    listeners  called with each event as well
    """
    stream = job.stream()
    while True:
        try:
            for event in stream:
                narrator.feed(event, job.kind)
                for listener in listeners:
                    listener(event)
            break
        except KeyboardInterrupt:
            if job.cancelling:
                raise
            job.cancel()
            seen = len(job.events)
            stream = (e for i, e in enumerate(job.stream()) if i >= seen)
    narrator.clear()
    return job


def problem_of(job: Job[Any]) -> Problem | None:
    """Why a job failed."""
    if job.state != "failed":
        return None
    return next((e for e in reversed(job.events) if isinstance(e, Problem)), None)


def printable(text: str) -> str:
    """Text of a model or a file without control characters: it must not steer the terminal."""
    return text.translate(CONTROLS)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, the head first; no trailing blanks."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
