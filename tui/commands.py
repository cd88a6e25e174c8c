"""The slash commands: one list for the full screen, the plain prompt and `/help`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine import catalog, methods
from engine.worker import Job

from .batch import Batch
from .commands_answers import COMMANDS as ANSWERS
from .commands_answers import no_answer
from .commands_copying import COMMANDS as COPYING
from .commands_edits import COMMANDS as EDITS
from .commands_past import COMMANDS as PAST
from .registry import Command, CommandRegistry, Front, Suggestion
from .views import Snapshot

__all__ = ["REGISTRY", "Command", "CommandRegistry", "Front", "Suggestion"]

ARROW = "=>"
RECALLED = 20  # lines that /recall shows


def split_fix(argument: str) -> tuple[str, str | None]:
    """`SUBJECT => ANSWER` or `ANSWER` as (answer, subject)."""
    subject, arrow, target = argument.rpartition(ARROW)
    return (target.strip(), subject.strip() or None) if arrow else (argument.strip(), None)


# -- availability and arguments ----------------------------------------------------------------


def _subjects(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    """Earlier subjects, to correct the same thing again."""
    names = dict.fromkeys(e.subject for e in reversed(snapshot.edits) if e.subject)
    return ((f"{name} {ARROW} ", "corrected before") for name in names)


def _method_names(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return ((m.name, m.summary) for m in methods.methods().values())


def _command_names(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return ((c.name, c.help) for c in REGISTRY.commands)


# -- handlers ----------------------------------------------------------------------------------


def _fix(front: Front, argument: str) -> None:
    front.fix(*split_fix(argument))


def _batch(front: Front, argument: str) -> None:
    front.batch(Batch.read(Path(argument)) if argument else None)


def _method(front: Front, argument: str) -> None:
    if argument:
        front.assistant.set_method(argument)
        front.say(f"Corrections use {argument} from now on.")
        return
    current = front.assistant.snapshot().method
    front.table(
        ("", "method", "what it does", "paper"),
        [
            ("*" if m.name == current else "", m.name, m.summary, m.paper)
            for m in methods.methods().values()
        ],
    )


def _model(front: Front, argument: str) -> None:
    if argument:
        source = catalog.resolve_model(argument)
        front.say(f"Another model is another session: llm-edit chat --model {source.name}")
        return
    s = front.assistant.snapshot()
    front.say(
        f"{s.model}: {s.model_type}, {s.layers} layers of {s.width}, {s.dtype} on {s.device}"
        if s.loaded
        else f"{s.model} (loading)"
    )


def _model_names(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return ((name, source.summary) for name, source in catalog.aliases().items())


def _stop(front: Front, argument: str) -> None:
    if not front.stop():
        front.say("Nothing is running.", "muted")


def _log(front: Front, argument: str) -> None:
    front.show_log()


def _sessions(front: Front, argument: str) -> None:
    def show(job: Job[Any]) -> None:
        front.table(
            ("session", "title", "model", "messages", "edits", "last used"),
            [
                (s.short, s.title, s.model.name, str(s.messages), str(s.edits), s.updated[:16])
                for s in job.result or ()
            ],
        )
        front.say("llm-edit chat --session NAME goes on with one.", "muted")

    front.run(front.assistant.sessions(), show)


def _recall(front: Front, argument: str) -> None:
    wanted = argument.casefold()

    def show(job: Job[list[str]]) -> None:
        found = [text for text in job.result or () if wanted in text.casefold()]
        front.show(found[:RECALLED] or ["Nothing like that was written before."])
        if len(found) > RECALLED:
            front.say(f"{len(found) - RECALLED} older ones are left out.", "muted")

    front.run(front.assistant.input_history(), show)


def _rename(front: Front, argument: str) -> None:
    def said(job: Job[Any]) -> None:
        front.say(f"This session is now called {job.result!r}.")

    front.run(front.assistant.rename(argument), said)


def _help(front: Front, argument: str) -> None:
    if argument:
        command = REGISTRY.get(argument)
        also = f" Also: {', '.join('/' + a for a in command.aliases)}." if command.aliases else ""
        front.say(f"{command.usage}: {command.help}.{also}")
        return
    front.table(("command", "what it does"), REGISTRY.sheet())


def _quit(front: Front, argument: str) -> None:
    front.quit()


REGISTRY = CommandRegistry(
    (
        Command(
            name="fix", argument=f"[SUBJECT {ARROW}] [ANSWER]", handler=_fix, aliases=("correct",),
            help="correct the last answer (--file FILE: many facts)", complete=_subjects,
            options={"--file": "batch"}, unavailable=no_answer,
        ),
        Command(name="batch", argument="[FILE]", handler=_batch,
                help="correct the facts of a JSON Lines file; without one, show how far it is"),
        *EDITS,
        *ANSWERS,
        *COPYING,
        Command(name="method", argument="[NAME]", help="list the methods, or choose one",
                handler=_method, complete=_method_names),
        Command(name="model", argument="[NAME]", help="say which model this is",
                handler=_model, complete=_model_names),
        Command(name="log", help="show the log of the last edit", handler=_log),
        *PAST,
        Command(name="sessions", help="list the sessions", handler=_sessions),
        Command(name="recall", argument="[TEXT]", handler=_recall,
                help="list what was written before, in all sessions, newest first"),
        Command(name="rename", argument="TITLE", help="give this session a title",
                handler=_rename),
        Command(name="stop", help="stop what runs", handler=_stop),
        Command(name="help", argument="[COMMAND]", help="list the commands", handler=_help,
                aliases=("?",), complete=_command_names),
        Command(name="quit", help="leave", handler=_quit, aliases=("exit", "q")),
    )
)  # fmt: skip
