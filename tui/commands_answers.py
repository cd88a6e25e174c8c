"""Commands about answers: why they are as they are, asking again, leaving them out."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import BadInput
from engine.worker import Job

from .registry import Command, Front
from .texts import clip
from .views import Snapshot, TurnView
from .why import WhyView, told


def no_answer(snapshot: Snapshot) -> str:
    answered = any(t.answer for t in snapshot.turns)
    return "" if answered or snapshot.busy else "there is no answer yet: ask something first."


def numbers(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    """The numbers of the answers, the last one first."""
    said = enumerate((t.answer for t in snapshot.turns if t.answer), start=1)
    return ((str(n), clip(text, 40)) for n, text in reversed(list(said)))


def _number(argument: str) -> int | None:
    """The number of an answer; None for "". Raises BadInput."""
    if argument and not argument.isdigit():
        raise BadInput(f"{argument!r} is not the number of an answer: 1 is the first.")
    return int(argument) if argument else None


def _why(front: Front, argument: str) -> None:
    def show(job: Job[WhyView]) -> None:
        if job.result is not None:
            front.show(told(job.result))

    front.run(front.assistant.why(_number(argument)), show)


def _retry(front: Front, argument: str) -> None:
    front.run(front.assistant.retry())


def _forget(front: Front, argument: str) -> None:
    def show(job: Job[TurnView]) -> None:
        question = _question(job)
        front.show([f"Forgotten: “{question}” and its answer. /remember takes them back."])

    front.run(front.assistant.forget(_number(argument)), show)


def _remember(front: Front, argument: str) -> None:
    def show(job: Job[TurnView]) -> None:
        front.show([f"Part of the conversation again: “{_question(job)}”."])

    front.run(front.assistant.remember(), show)


def _question(job: Job[TurnView]) -> str:
    return clip(job.result.question, 60) if job.result else ""


COMMANDS = (
    Command(name="why", argument="[N]", handler=_why, aliases=("why?",), complete=numbers,
            unavailable=no_answer,
            help="which edits had a part in the last answer, or in answer N"),
    Command(name="retry", handler=_retry, unavailable=no_answer,
            help="ask the last question again"),
    Command(name="forget", argument="[N]", handler=_forget, complete=numbers,
            unavailable=no_answer,
            help="leave the last question and answer, or answer N, out of the conversation"),
    Command(name="remember", handler=_remember, help="take back what was forgotten last"),
)  # fmt: skip
