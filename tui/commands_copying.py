"""`/copy` and `/save-answer`: answers, and the code in them, taken out of the conversation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.errors import BadInput

from .clipboard import code_of
from .commands_answers import no_answer, numbers
from .registry import Command, Front
from .views import Snapshot


def answers(snapshot: Snapshot) -> list[str]:
    """What the model said, oldest first."""
    return [turn.answer for turn in snapshot.turns if turn.answer]


def _which(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    """The arguments of `/copy` that exist, the last answer first."""
    yield "code", "the code in the last answer"
    yield from numbers(snapshot)


def _copy(front: Front, argument: str) -> None:
    """`/copy`, `/copy N`, `/copy code`, `/copy N code`."""
    words = argument.split()
    wants_code = words[-1:] == ["code"]
    text = _chosen(front, " ".join(words[:-1] if wants_code else words))
    if wants_code:
        text = code_of(text)
        if not text:
            raise BadInput("there is no code between ``` in that answer.")
    front.copy(text)


def _save(front: Front, argument: str) -> None:
    """`/save-answer FILE`, `/save-answer N FILE`. Never over a file that is there."""
    number, _, rest = argument.partition(" ")
    path = Path(rest.strip() if number.isdigit() and rest.strip() else argument).expanduser()
    text = _chosen(front, number if number.isdigit() and rest.strip() else "")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise BadInput(f"{path} is there already.", "Name another file.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}).") from None
    front.say(f"Written to {path.absolute()}.", "good")


def _chosen(front: Front, number: str) -> str:
    """Answer `number`, counted from 1; the last one for "". Raises BadInput."""
    said = answers(front.assistant.snapshot())
    if not said:
        raise BadInput("there is no answer yet: ask something first.")
    if not number:
        return said[-1]
    if not (number.isdigit() and 1 <= int(number) <= len(said)):
        raise BadInput(f"there is no answer {number!r}: they count from 1 to {len(said)}.")
    return said[int(number) - 1]


COMMANDS = (
    Command(name="copy", argument="[N] [code]", handler=_copy, complete=_which,
            unavailable=no_answer, help="copy the last answer or answer N, or the code in it"),
    Command(name="save-answer", argument="FILE", handler=_save, unavailable=no_answer,
            help="write the last answer to a file (N FILE: answer N)"),
)  # fmt: skip
