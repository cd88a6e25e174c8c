"""Comparing what a model says in two states. The engine's thread only.

Another state is another set of active patches on the same weights: nothing is loaded, and the
ledger of the conversation is not touched.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.compare import Reading, read
from engine.events import Event, Loading
from engine.requests import Request
from engine.worker import Job

from .states import State, StateView, choices, resolve

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.lm import LM

    from .conversation import Conversation

AT_ONCE = 4  # prompts decoded together: between two batches the job can be stopped
TOKENS = 64  # of an answer
KEPT = 1000  # readings that are remembered


@dataclass(frozen=True)
class Prompt:
    """kind: "asked" (what was edited), "rephrased", "neighbour" or "free" (typed here)."""

    kind: str
    text: str
    chat: bool = True


@dataclass(frozen=True)
class CompareRow:
    """A prompt with what the two states make of it; None where it was not asked yet."""

    prompt: Prompt
    a: Reading | None = None
    b: Reading | None = None

    def read(self, side: str, reading: Reading) -> CompareRow:
        """The row with the reading of one side, "a" or "b"."""
        return replace(self, a=reading) if side == "a" else replace(self, b=reading)


@dataclass(frozen=True)
class CompareView:
    """A comparison, as far as it has come."""

    a: StateView
    b: StateView
    rows: tuple[CompareRow, ...]

    @property
    def same_edits(self) -> bool:
        """Whether the two states are one."""
        return self.a.edits == self.b.edits

    @property
    def whole(self) -> bool:
        return all(row.a is not None and row.b is not None for row in self.rows)


class Comparing:
    """Comparisons of a conversation; remembers readings, which never change."""

    def __init__(self, conversation: Conversation) -> None:
        self._of = conversation
        self._known: dict[tuple[Any, ...], Reading] = {}

    def states(self) -> Generator[Event, None, tuple[StateView, ...]]:
        """The states that can be chosen. Raises SessionError."""
        yield from ()
        return tuple(choices(self._of))

    def compare(
        self, a: str, b: str, free: Sequence[str], job: Job[Any] | None
    ) -> Generator[Event, None, CompareView]:
        """Ask the same prompts in states `a` and `b`, one after the other.

        free  prompts besides those of the edits by which the states differ
        job   its result is the comparison as far as it has come, also when it is stopped
        Raises what `resolve` raises.
        """
        lm, _ = self._of.ready()
        states = resolve(self._of, a), resolve(self._of, b)
        prompts = [*_prompts(lm, *states), *(Prompt("free", text) for text in free)]
        view = CompareView(states[0].view, states[1].view, tuple(map(CompareRow, prompts)))
        total, done = 2 * len(prompts), 0
        yield Loading(stage="compare", done=0, total=total, unit="answers")
        for some in _batches(prompts):
            for side, state in zip("ab", states, strict=True):
                readings = self._readings(lm, state, [prompts[i] for i in some], job)
                if readings is None:  # the worker ends it here
                    yield Loading(stage="compare", done=done, total=total, unit="answers")
                    return view
                rows = list(view.rows)
                for i, reading in zip(some, readings, strict=True):
                    rows[i] = rows[i].read(side, reading)
                view = replace(view, rows=tuple(rows))
                done += len(some)
                if job is not None:
                    job.result = view
                yield Loading(stage="compare", done=done, total=total, unit="answers")
        return view

    def _readings(
        self, lm: LM, state: State, prompts: Sequence[Prompt], job: Job[Any] | None
    ) -> list[Reading] | None:
        """Of prompts that are asked in one batch, in this state or in memory; None if stopped."""
        keys = [(state.view.edits, tuple(prompts), i) for i in range(len(prompts))]
        if not all(key in self._known for key in keys):
            patches = [patch for edit in state.edits for patch in edit.patches]
            rendered = [lm.prompt(p.text, chat=p.chat) for p in prompts]
            readings = read(lm, patches, rendered, max_tokens=TOKENS, stopped=lambda: _stopped(job))
            if _stopped(job):
                return None
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
            self._known |= dict(zip(keys, readings, strict=True))
        return [self._known[key] for key in keys]


def _stopped(job: Job[Any] | None) -> bool:
    return job is not None and job.cancelling


def _prompts(lm: LM, a: State, b: State) -> list[Prompt]:
    """What tells two states apart: the newest edit that one lacks, with its rephrasings and
    neighbours, then what the other such edits were about.

    Two equal states are asked about their last edit.
    """
    differing = [*_lacking(b, a), *_lacking(a, b)] or [*b.edits[-1:]]
    if not differing:
        return []
    newest, *others = sorted(differing, key=lambda edit: edit.id, reverse=True)
    found = [*_all_of(lm, newest.requests[0])]
    found += [Prompt("asked", r.prompt, r.chat) for e in others for r in e.requests]
    found += [Prompt("asked", r.prompt, r.chat) for r in newest.requests[1:]]
    return list(dict.fromkeys(found))


def _lacking(state: State, other: State) -> list[Edit]:
    have = set(other.view.edits)
    return [edit for edit in state.edits if edit.id not in have]


def _all_of(lm: LM, request: Request) -> list[Prompt]:
    """A request's own prompts: what it was judged by when it was edited."""
    from engine.evaluate.probes import Probes

    probes = Probes.build(lm, request)
    return [
        Prompt("asked", request.prompt, request.chat),
        *(Prompt("rephrased", text, request.chat) for text in probes.rephrases),
        *(Prompt("neighbour", text, request.chat) for text in probes.neighbours),
    ]


def _batches(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Places of prompts to be asked together.

    The first by itself, so that something is seen soon; each free one too, so that it is asked
    in the same batch, and remembered, when others are added.
    """
    batches: list[list[int]] = []
    for place, prompt in enumerate(prompts):
        alone = place == 0 or prompt.kind == "free" or prompts[place - 1].kind == "free"
        if alone or place == 1 or len(batches[-1]) == AT_ONCE:
            batches.append([place])
        else:
            batches[-1].append(place)
    return batches
