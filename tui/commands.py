"""The slash commands: one registry for the full screen, the plain prompt and `/help`.

A handler talks to a `Front`, never to a screen or a terminal. No torch, no user interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine import catalog, methods
from engine.errors import BadInput, LLMEditError, UnknownName
from engine.worker import Job

from .assistant import Assistant
from .views import EditView, Snapshot

ARROW = "=>"


class Front(Protocol):
    """What a command may ask of the front end it was typed in."""

    assistant: Assistant

    def say(self, text: str, tone: str = "info") -> None:
        """A sentence of the program; tone: info, good, bad, muted."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of text under a head."""

    def run(self, job: Job[Any], done: Callable[[Job[Any]], None] | None = None) -> None:
        """Follow a job, show how it ends; `done` is called after that if it did not fail."""

    def fix(self, target: str, subject: str | None) -> None:
        """Correct the last answer; an empty target is asked for."""

    def stop(self) -> bool:
        """Cancel what runs; False when there was nothing."""

    def copy(self, text: str) -> None:
        """To the clipboard, or however this front hands text over."""

    def show_log(self) -> None:
        """The researcher's log of the last edit."""

    def quit(self) -> None:
        """Leave."""


Handler = Callable[[Front, str], None]
Completer = Callable[[Snapshot], Iterable[tuple[str, str]]]  # (argument, hint)
Reason = Callable[[Snapshot], str]  # why it is not available; "" when it is


def _always(snapshot: Snapshot) -> str:
    return ""


def _nothing(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A slash command.

    argument   as shown in the usage: "" for none, "[NAME]" optional, "N" needed
    complete   arguments that exist, with a hint for each
    unavailable  why it cannot be used now; "" when it can
    safe_while_busy  does not wait for, or disturb, a job that runs
    """

    name: str
    help: str
    handler: Handler
    argument: str = ""
    aliases: tuple[str, ...] = ()
    complete: Completer = _nothing
    unavailable: Reason = _always
    safe_while_busy: bool = False

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()

    @property
    def needs_argument(self) -> bool:
        return bool(self.argument) and not self.argument.startswith("[")


@dataclass(frozen=True)
class Suggestion:
    """`insert` replaces what was typed; `label` and `hint` are shown."""

    insert: str
    label: str
    hint: str


class CommandRegistry:
    """Commands by name and alias, in the order in which help lists them."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self.commands = tuple(commands)
        self._by_name = {n: c for c in self.commands for n in (c.name, *c.aliases)}

    def get(self, name: str) -> Command:
        """By name, alias, or a beginning that fits one command only. Raises UnknownName."""
        name = name.removeprefix("/").lower()
        if name in self._by_name:
            return self._by_name[name]
        begun = {c.name for n, c in self._by_name.items() if name and n.startswith(name)}
        if len(begun) == 1:
            return self._by_name[begun.pop()]
        raise UnknownName("command", f"/{name}", (f"/{c.name}" for c in self.commands))

    def run_line(self, front: Front, line: str) -> None:
        """Carry out a line that begins with a slash; what is wrong with it is said."""
        try:
            command, argument = self.parse(line)
            snapshot = front.assistant.snapshot()
            reason = command.unavailable(snapshot)
            if reason:
                raise BadInput(reason)
            command.handler(front, argument)
        except LLMEditError as error:
            front.say(str(error), "bad")

    def parse(self, line: str) -> tuple[Command, str]:
        """Raises UnknownName; BadInput for an argument that is missing or not taken."""
        name, _, argument = line.strip().partition(" ")
        command, argument = self.get(name), argument.strip()
        if command.needs_argument and not argument:
            raise BadInput(f"{command.usage}: {command.argument} is missing.")
        if argument and not command.argument:
            raise BadInput(f"/{command.name} takes no argument.")
        return command, argument

    def complete(self, text: str, snapshot: Snapshot) -> list[Suggestion]:
        """What may follow `text`, a line typed so far; nothing unless it begins with a slash."""
        if not text.startswith("/") or "\n" in text:
            return []
        name, space, typed = text.partition(" ")
        if not space:
            return [
                Suggestion(f"/{c.name} " if c.argument else f"/{c.name}", c.usage, c.help)
                for c in self.commands
                if any(n.startswith(name[1:].lower()) for n in (c.name, *c.aliases))
            ]
        command = self._by_name.get(name[1:].lower())
        if command is None:
            return []
        return [
            Suggestion(f"/{command.name} {argument}", argument, hint)
            for argument, hint in command.complete(snapshot)
            if argument.lower().startswith(typed.lower()) and argument != typed
        ]

    def sheet(self) -> list[tuple[str, str]]:
        """(usage, help) of every command."""
        return [(c.usage, c.help) for c in self.commands]


def split_fix(argument: str) -> tuple[str, str | None]:
    """`SUBJECT => ANSWER` or `ANSWER` as (answer, subject)."""
    subject, arrow, target = argument.rpartition(ARROW)
    return (target.strip(), subject.strip() or None) if arrow else (argument.strip(), None)


# -- availability and arguments ----------------------------------------------------------------


def _no_answer(snapshot: Snapshot) -> str:
    answered = any(t.answer for t in snapshot.turns)
    return "" if answered or snapshot.busy else "there is no answer yet: ask something first."


def _no_active(snapshot: Snapshot) -> str:
    return "" if snapshot.active or snapshot.busy else "there is no edit to undo."


def _no_undone(snapshot: Snapshot) -> str:
    undone = any(e.state == "undone" for e in snapshot.edits)
    return "" if undone or snapshot.busy else "there is no edit to redo."


def _no_edits(snapshot: Snapshot) -> str:
    return "" if snapshot.edits else "nothing was edited in this session."


def _active_numbers(snapshot: Snapshot) -> Iterable[tuple[str, str]]:
    return ((str(e.number), f"{e.subject or e.question} → {e.target}") for e in snapshot.active)


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


def _undo(front: Front, argument: str) -> None:
    front.run(front.assistant.undo())


def _redo(front: Front, argument: str) -> None:
    front.run(front.assistant.redo())


def _drop(front: Front, argument: str) -> None:
    snapshot = front.assistant.snapshot()
    number = argument.removeprefix("#")
    edit = snapshot.edit(int(number)) if number.isdigit() else None
    if edit is None or edit.state != "applied":
        raise UnknownName("active edit", argument, (str(e.number) for e in snapshot.active))
    front.run(front.assistant.drop(edit.id))


MARKS = {
    "applied": "on", "undone": "undone", "failed": "failed", "cancelled": "stopped",
    "interrupted": "interrupted", "running": "running",
}  # fmt: skip


def edit_row(edit: EditView) -> tuple[str, ...]:
    """A line of `/edits`."""
    took = ("yes" if edit.success else "no") if edit.state in ("applied", "undone") else ""
    fact = edit.subject or edit.question
    return str(edit.number), MARKS[edit.state], edit.method, f"{fact} → {edit.target}", took


EDIT_HEAD = ("#", "state", "method", "fact", "took")


def _edits(front: Front, argument: str) -> None:
    front.table(EDIT_HEAD, [edit_row(e) for e in front.assistant.snapshot().edits])


def _why(front: Front, argument: str) -> None:
    edit = front.assistant.snapshot().edits[-1]
    front.say(f"Edit #{edit.number} ({edit.method}, {MARKS[edit.state]}): {edit.question}")
    if edit.verdict:
        front.say(f"Before: {edit.answer_before}")
        front.say(f"After: {edit.answer_after}")
        front.say(edit.verdict, "good" if edit.success else "bad")


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


def _retry(front: Front, argument: str) -> None:
    front.run(front.assistant.retry())


def _copy(front: Front, argument: str) -> None:
    answers = [t.answer for t in front.assistant.snapshot().turns if t.answer]
    if argument and not (argument.isdigit() and 1 <= int(argument) <= len(answers)):
        raise BadInput(f"there is no answer {argument!r}: they count from 1 to {len(answers)}.")
    front.copy(answers[int(argument) - 1] if argument else answers[-1])


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
            help="correct the last answer", complete=_subjects, unavailable=_no_answer,
        ),
        Command(name="undo", help="take the last edit off, exactly", handler=_undo,
                unavailable=_no_active),
        Command(name="redo", help="put the last undone edit back", handler=_redo,
                unavailable=_no_undone),
        Command(name="drop", argument="N", help="take edit N off and leave the others",
                handler=_drop, complete=_active_numbers, unavailable=_no_active),
        Command(name="edits", help="list the edits of this session", handler=_edits,
                unavailable=_no_edits, safe_while_busy=True),
        Command(name="why", help="what the last edit did, in words", handler=_why,
                aliases=("why?",), unavailable=_no_edits, safe_while_busy=True),
        Command(name="retry", help="ask the last question again", handler=_retry,
                unavailable=_no_answer),
        Command(name="copy", argument="[N]", help="copy the last answer, or answer N",
                handler=_copy, unavailable=_no_answer, safe_while_busy=True),
        Command(name="method", argument="[NAME]", help="list the methods, or choose one",
                handler=_method, complete=_method_names, safe_while_busy=True),
        Command(name="model", argument="[NAME]", help="say which model this is",
                handler=_model, complete=_model_names, safe_while_busy=True),
        Command(name="log", help="show the log of the last edit", handler=_log,
                safe_while_busy=True),
        Command(name="sessions", help="list the sessions", handler=_sessions),
        Command(name="rename", argument="TITLE", help="give this session a title",
                handler=_rename),
        Command(name="stop", help="stop what runs", handler=_stop, safe_while_busy=True),
        Command(name="help", argument="[COMMAND]", help="list the commands", handler=_help,
                aliases=("?",), complete=_command_names, safe_while_busy=True),
        Command(name="quit", help="leave", handler=_quit, aliases=("exit", "q"),
                safe_while_busy=True),
    )
)  # fmt: skip
