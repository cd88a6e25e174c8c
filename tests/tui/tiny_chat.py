"""Assistants on a tiny model, for tests of what the engine's thread really does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.worker import Job
from tests.cli.small import LARGE, hparams
from tui.assistant import Assistant, Options

WAIT = 120.0
Make = Callable[..., Assistant]


def done(job: Job[Any]) -> Any:
    """The result of a job that must succeed."""
    assert job.wait(WAIT)
    return job.value()


def answers(assistant: Assistant) -> list[str]:
    return [turn.answer for turn in assistant.snapshot().turns]


@contextmanager
def assistants(tiny_folder: Callable[..., Path], tmp_path: Path) -> Iterator[Make]:
    """`make(**options)`: a loaded assistant with a tiny chat model; all closed at the end."""
    made: list[Assistant] = []

    def make(family: str = "llama", **options: Any) -> Assistant:
        base = Options(
            model=str(tiny_folder(family, chat=True)),
            dtype="fp32",
            home=tmp_path / "home",
            max_tokens=8,
            hp=hparams(tmp_path, **LARGE),
            prepare=False,
        )
        made.append(Assistant(dataclasses.replace(base, **options)))
        done(made[-1].load())
        return made[-1]

    yield make
    for each in made:
        each.close(WAIT)
