"""Many facts from a file. Both front ends and `edit --file` drive this.

Each fact is a correction of its own, recorded, undone and replayed like any other; a method for
many facts makes one of all that stand together. Between two corrections the engine takes up
whatever else was asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import methods
from engine.config import as_texts
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
    "waiting": "·", "running": "▸", "took": "✓", "already so": "=", "not taken": "✗",
    "refused": "!", "stopped": "■",
}  # fmt: skip

NO_BATCH = ("no file of facts is being worked on.", "/batch FILE begins one.")


@dataclass
class Row:
    """One fact and what has become of it.

    state    a key of MARKS; "already so": the model answered as wanted before, and "refused":
             nothing was edited, `said` says why
    seconds  that it took, 0 while it has not; of facts edited at once an equal share each
    """

    fact: Fact
    state: str = "waiting"
    seconds: float = 0.0
    said: str = ""

    @property
    def good(self) -> bool:
        """Whether the model answers as wanted."""
        return self.state in ("took", "already so")

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
        self.group: list[Row] = []  # the rows that run, or ran last: several become one edit

    @classmethod
    def read(cls, path: Path) -> Batch:
        """A file as `edit --file` takes it.

        Raises BadFile naming the line, and for a file without facts; UnknownName (a method).
        """
        return cls(facts_of(path), path.name)

    def begin_next(self, assistant: Assistant) -> Job[Any] | None:
        """Start the next correction; None when there is none, or the batch was stopped."""
        waiting = [row for row in self.rows if row.state == "waiting"]
        if self.stopped or not waiting:
            self.job = None
            return None
        together = next(groups([row.fact for row in waiting], assistant.snapshot().method))
        self.group = waiting[: len(together)]
        for row in self.group:
            row.state = "running"
        self.job = begin(assistant, together)
        return self.job

    @property
    def question(self) -> str:
        """What the running correction is about."""
        first = self.group[0].fact.request.prompt
        return first if len(self.group) == 1 else f"{len(self.group)} facts: {first} …"

    @property
    def target(self) -> str:
        """What the running correction is to make the model say."""
        return clip(", ".join(row.fact.request.target_new for row in self.group), 120)

    def ended(self, job: Job[Any]) -> list[Row]:
        """Take in how the running correction has ended: its rows. A cancel stops everything."""
        ends = [e for e in job.events if isinstance(e, JobEnded)]
        for row in self.group:
            row.seconds = (ends[-1].seconds if ends else 0.0) / len(self.group)
        if isinstance(job.result, CorrectionView):
            self._judge(job.result)
        else:
            problem = next((e for e in job.events if isinstance(e, Problem)), None)
            why = f"{problem.message} {problem.remedy}".strip() if problem else ""
            stopped = job.state == "cancelled"
            already = problem is not None and problem.error == "AlreadySaid"
            for row in self.group:
                row.state = "stopped" if stopped else "already so" if already else "refused"
                row.said = "Nothing was changed." if stopped else why
        if job.state == "cancelled":
            self.stop()
        return self.group

    def _judge(self, view: CorrectionView) -> None:
        """What became of each fact of an edit."""
        found = {(fact.prompt, fact.target): fact for fact in view.facts}
        for row in self.group:
            request = row.fact.request
            fact = found.get((request.prompt, request.target_new))
            if not view.facts:
                row.state = "took" if view.edit.success else "not taken"
                row.said = view.edit.verdict
            elif fact is None:
                row.state, row.said = "refused", "It is not in the edit."
            else:
                took = "already so" if fact.already else "took"
                row.state = took if fact.success else "not taken"
                row.said = f"Asked again, the model says: {fact.after.answer}"

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
        running = sum(row.state == "running" for row in self.rows)
        at_once = f" · {running} at once" if running > 1 else ""
        return f"{ended}/{len(self.rows)}{at_once}{eta}"

    def summary(self) -> str:
        """The end in one sentence."""
        words = ", ".join(f"{n} {state}" for state, n in self.counts().items())
        seconds = sum(row.seconds for row in self.rows)
        return f"{self.name}: {count(len(self.rows), 'fact')}, {words}; {seconds:.1f} s."

    @property
    def tone(self) -> str:
        """As for the verdict of an edit: all, some or none took."""
        good = sum(row.good for row in self.rows)
        return "good" if good == len(self.rows) else "partly" if good else "bad"

    def told(self, row: Row) -> str:
        """A row as a line of text."""
        number = self.rows.index(row) + 1
        line = f"{number}/{len(self.rows)} {row.state}, {row.seconds:.1f} s: {row.change}"
        return line if row.state == "took" else f"{line} ({clip(row.said, 200)})"


def facts_of(path: Path) -> list[Fact]:
    """The facts of a file, one at least, with methods that there are.

    Raises BadFile naming the line, and for a file without facts; UnknownName.
    """
    facts = list(read_facts(path.expanduser()))
    if not facts:
        raise BadFile(path, None, "holds no facts.")
    for name in {fact.method for fact in facts if fact.method}:
        methods.get(name)
    return facts


def groups(facts: Sequence[Fact], method: str, *, one_by_one: bool = False) -> Iterator[list[Fact]]:
    """The facts that become one edit each time: neighbours in the file that are edited alike, by
    a method for many.

    method  of the facts that name none
    A fact with turns before it is one by itself, and one whose subject is still to be found.
    """

    def kind(fact: Fact) -> tuple[Any, ...]:
        name = fact.method or method
        info = methods.get(name)
        unnamed = info.needs_subject and fact.request.subject is None
        alone = one_by_one or fact.request.history or unnamed or not info.batch
        return (id(fact),) if alone else (name, sorted(fact.hparams.items()))

    for _, group in itertools.groupby(facts, kind):
        yield list(group)


def begin(
    assistant: Assistant, facts: Sequence[Fact], *, probes: bool = True
) -> Job[CorrectionView]:
    """Start the correction of a group of facts, by the method and settings that they name."""
    fact = facts[0]
    request, hp = fact.request, settings(fact)
    if len(facts) > 1:
        requests = [each.request for each in facts]
        return assistant.correct_batch(requests, method=fact.method, hp=hp, probes=probes)
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
        hp=hp,
        probes=probes,
    )


def settings(fact: Fact) -> dict[str, str]:
    """The hyper-parameters that a fact names, as the command line would give them."""
    return as_texts(fact.hparams)
