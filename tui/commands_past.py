"""Commands about what was: the timeline, branches, other sessions, comparisons."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import BadInput

from .commands_edits import FINISHED
from .registry import Command, Front
from .states import NOW, UNEDITED, is_state
from .views import Snapshot


def _nothing_said(snapshot: Snapshot) -> str:
    return "" if snapshot.session_id or snapshot.busy else "nothing was said in this session yet."


def _answers(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    told = (t for t in snapshot.turns if t.answer)
    return ((str(n), f"{t.question} → {t.answer}") for n, t in enumerate(told, start=1))


def _states(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    yield UNEDITED, "the model without edits"
    for edit in snapshot.edits:
        if edit.state in FINISHED:
            yield f"#{edit.number}", f"after the edit {edit.fact}"
    yield NOW, "with the edits that are in force"


def _history(front: Front, argument: str) -> None:
    front.show_history()


def _branch(front: Front, argument: str) -> None:
    """An answer of this conversation by its number, or any message by the end of its id."""
    told = [t for t in front.assistant.snapshot().turns if t.answer and not t.statement]
    if argument.isdigit() and 1 <= int(argument) <= len(told):
        front.run(front.assistant.branch(told[int(argument) - 1].id))
    elif argument.isdigit() and len(argument) < 4:
        raise BadInput(f"there is no answer {argument}: they count from 1 to {len(told)}.")
    else:
        front.run(front.assistant.branch(argument))


def _open(front: Front, argument: str) -> None:
    """Without an argument this session, as another llm-edit has left it."""
    session = argument or front.assistant.snapshot().session_id
    if not session:
        raise BadInput("nothing was said in this session yet.")
    front.run(front.assistant.open(session))


def split_compare(argument: str) -> tuple[str, str, str]:
    """`[A] [B] [PROMPT]` as (state, state, prompt): one state is compared with now."""
    words = argument.split()
    states: list[str] = []
    while words and len(states) < 2 and is_state(words[0]):
        states.append(words.pop(0))
        argument = argument.strip()[len(states[-1]) :]
    if not states:
        states = [UNEDITED]
    return states[0], states[1] if len(states) > 1 else NOW, argument.strip()


def _compare(front: Front, argument: str) -> None:
    a, b, prompt = split_compare(argument)
    front.compare(a, b, (prompt,) if prompt else ())


COMMANDS = (
    Command(name="history", help="the timeline: what was said, edited and undone",
            handler=_history, aliases=("timeline",)),
    Command(name="branch", argument="N", help="go on from answer N (or a message of /history)",
            handler=_branch, complete=_answers, unavailable=_nothing_said),
    Command(name="open", argument="[SESSION]",
            help="go on with another session of this model; alone: this one, as it is now",
            handler=_open, aliases=("resume",)),
    Command(name="compare", argument="[A] [B] [PROMPT]",
            help="what two states of the model say: unedited, now, #N, @SESSION",
            handler=_compare, complete=_states),
)  # fmt: skip
