"""Many facts from a file, corrected one after the other. Both front ends drive this.

Each fact is a correction of its own: recorded, undone and replayed like any other. Between two
of them the engine takes up whatever else was asked for.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import methods
from engine.errors import BadFile
from engine.events import JobEnded, Problem
from engine.requests import Fact, read_facts
from engine.worker import Job

from .narrate import count
from .texts import clip
from .views import CorrectionView

if TYPE_CHECKING:
    from .assistant import Assistant

MARKS = {
    "waiting": "·", "running": "▸", "took": "✓", "not taken": "✗", "refused": "!", "stopped": "■",
}  # fmt: skip

NO_BATCH = ("no file of facts is being worked on.", "/batch FILE begins one.")


@dataclass
class Row:
    """One fact and what has become of it.

    state    a key of MARKS; "refused": nothing was edited, `said` says why
    seconds  that it took, 0 while it has not
    """

    fact: Fact
    state: str = "waiting"
    seconds: float = 0.0
    said: str = ""

    @property
    def change(self) -> str:
        return f"{self.fact.request.prompt} → {self.fact.request.target_new}"


class Batch:
    """The facts of a file, their states, and which comes next."""

    def __init__(self, facts: list[Fact], name: str = "") -> None:
        self.rows = [Row(fact) for fact in facts]
        self.name = name
        self.job: Job[Any] | None = None  # the correction that runs
        self.stopped = False
        self._place = -1

    @classmethod
    def read(cls, path: Path) -> Batch:
        """A file as `edit --file` takes it; a prompt with a question mark is asked as a question.

        Raises BadFile naming the line, and for a file without facts; UnknownName (a method).
        """
        facts = [_asked(fact) for fact in read_facts(path.expanduser())]
        if not facts:
            raise BadFile(path, None, "holds no facts.")
        for name in {fact.method for fact in facts if fact.method}:
            methods.get(name)
        return cls(facts, path.name)

    def begin_next(self, assistant: Assistant) -> Job[Any] | None:
        """Start the correction of the next fact; None when there is none, or it was stopped."""
        waiting = [i for i, row in enumerate(self.rows) if row.state == "waiting"]
        if self.stopped or not waiting:
            self.job = None
            return None
        self._place = waiting[0]
        self.current.state = "running"
        self.job = begin(assistant, self.current.fact)
        return self.job

    @property
    def current(self) -> Row:
        """The row that runs, or ran last."""
        return self.rows[self._place]

    def ended(self, job: Job[Any]) -> Row:
        """Take in how the running correction has ended. A cancel stops the whole batch."""
        row = self.current
        ends = [e for e in job.events if isinstance(e, JobEnded)]
        row.seconds = ends[-1].seconds if ends else 0.0
        view = job.result
        if isinstance(view, CorrectionView):
            row.state = "took" if view.edit.success else "not taken"
            row.said = view.edit.verdict
        elif job.state == "cancelled":
            row.state, row.said = "stopped", "Nothing was changed."
        else:
            problem = next((e for e in job.events if isinstance(e, Problem)), None)
            row.state = "refused"
            row.said = f"{problem.message} {problem.remedy}".strip() if problem else ""
        if job.state == "cancelled":
            self.stop()
        return row

    def stop(self) -> None:
        """Cancel what runs; what was done stays."""
        self.stopped = True
        if self.job is not None:
            self.job.cancel()
        for row in self.rows:
            if row.state == "waiting":
                row.state, row.said = "stopped", "Not begun."

    @property
    def finished(self) -> bool:
        return not any(row.state in ("waiting", "running") for row in self.rows)

    def counts(self) -> dict[str, int]:
        """How many rows are in each state that occurs."""
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in MARKS if state in states}

    def share(self) -> float:
        """How many of the facts have ended, 0 to 1."""
        ended = sum(row.state not in ("waiting", "running") for row in self.rows)
        return ended / len(self.rows)

    def seconds_left(self) -> float:
        """From the mean of those that are done; NaN before the first."""
        took = [row.seconds for row in self.rows if row.seconds]
        left = sum(row.state in ("waiting", "running") for row in self.rows)
        return left * sum(took) / len(took) if took else math.nan

    def progress(self) -> str:
        """ "3/12 · 20 s left" """
        ended = sum(row.state not in ("waiting", "running") for row in self.rows)
        left = self.seconds_left()
        eta = "" if math.isnan(left) or self.finished else f" · {left:.{left < 10:d}f} s left"
        return f"{ended}/{len(self.rows)}{eta}"

    def summary(self) -> str:
        """The end in one sentence."""
        words = ", ".join(f"{n} {state}" for state, n in self.counts().items())
        seconds = sum(row.seconds for row in self.rows)
        return f"{self.name}: {count(len(self.rows), 'fact')}, {words}; {seconds:.1f} s."

    @property
    def tone(self) -> str:
        """As for the verdict of an edit: all, some or none took."""
        took = self.counts().get("took", 0)
        return "good" if took == len(self.rows) else "partly" if took else "bad"

    def told(self, row: Row) -> str:
        """A row as a line of text."""
        number = self.rows.index(row) + 1
        line = f"{number}/{len(self.rows)} {row.state}, {row.seconds:.1f} s: {row.change}"
        return line if row.state == "took" else f"{line} ({clip(row.said, 200)})"


def _asked(fact: Fact) -> Fact:
    chat = fact.request.chat or fact.request.prompt.endswith("?")
    return dataclasses.replace(fact, request=dataclasses.replace(fact.request, chat=chat))


def begin(assistant: Assistant, fact: Fact, *, probes: bool = True) -> Job[CorrectionView]:
    """Start the correction of one fact of a file, by the method and settings that it names."""
    request = fact.request
    return assistant.correct(
        request.target_new,
        question=request.prompt,
        subject=request.subject,
        old=request.target_old,
        statement=not request.chat,
        rephrases=request.rephrases,
        neighbours=request.neighbours,
        history=request.history,
        method=fact.method,
        hp=settings(fact),
        probes=probes,
    )


def settings(fact: Fact) -> dict[str, str]:
    """The hyper-parameters that a fact names, as the command line would give them."""
    return {name: _text(value) for name, value in fact.hparams.items()}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
