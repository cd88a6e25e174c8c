"""Assistants on a tiny model, for tests of what the engine's thread really does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.events import Event
from engine.worker import Job
from tests.cli.small import LARGE, hparams
from tui.assistant import Assistant, Options

WAIT = 120.0
Make = Callable[..., Assistant]


def done(job: Job[Any]) -> Any:
    """The result of a job that must succeed."""
    assert job.wait(WAIT)
    return job.value()


def at(job: Job[Any], kind: type[Event], count: int = 1) -> None:
    """Wait until a job has told its `count`-th event of a kind."""
    seen = 0
    for event in job.stream():
        seen += isinstance(event, kind)
        if seen == count:
            return
    raise AssertionError(f"{job} ended without {count} {kind.__name__}")


def answers(assistant: Assistant) -> list[str]:
    return [turn.answer for turn in assistant.snapshot().turns]


@contextmanager
def assistants(tiny_folder: Callable[..., Path], tmp_path: Path) -> Iterator[Make]:
    """`make(**options)`: a loaded assistant with a tiny chat model; all closed at the end."""
    made: list[Assistant] = []

    def make(family: str = "llama", *, load: bool = True, **options: Any) -> Assistant:
        base = Options(
            model=str(tiny_folder(family, chat=True)),
            dtype="fp32",
            home=tmp_path / "home",
            max_tokens=8,
            hp=hparams(tmp_path, **LARGE),
            prepare=False,
        )
        made.append(Assistant(dataclasses.replace(base, **options)))
        if load:
            done(made[-1].load())
        return made[-1]

    yield make
    for each in made:
        each.close(WAIT)
