"""What a slash command is, and the registry that finds, completes and runs them.

A handler talks to a `Front`, never to a screen or a terminal. No torch, no user interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import BadInput, LLMEditError, UnknownName

from .views import Snapshot

if TYPE_CHECKING:
    from engine.worker import Job

    from .assistant import Assistant
    from .batch import Batch


class Front(Protocol):
    """What a command may ask of the front end it was typed in."""

    @property
    def assistant(self) -> Assistant:
        """The chat that commands act on."""

    def say(self, text: str, tone: str = "info") -> None:
        """A sentence of the program; tone: info, good, bad, muted."""

    def show(self, lines: Sequence[str]) -> None:
        """Sentences that a command was asked for, one a line."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of text under a head."""

    def run(self, job: Job[Any], done: Callable[[Job[Any]], None] | None = None) -> None:
        """Follow a job, show how it ends; `done` is called after that if it did not fail."""

    def fix(self, target: str, subject: str | None) -> None:
        """Correct the last answer; an empty target is asked for."""

    def batch(self, batch: Batch | None) -> None:
        """Correct the facts of a file, one after the other; None: show how far they are."""

    def stop(self) -> bool:
        """Cancel what runs; False when there was nothing."""

    def copy(self, text: str) -> None:
        """To the clipboard, or however this front hands text over."""

    def show_log(self) -> None:
        """The researcher's log of the last edit."""

    def show_history(self) -> None:
        """The timeline of this session, and the other sessions where there is room."""

    def compare(self, a: str, b: str, prompts: Sequence[str]) -> None:
        """What two states of the model say (`tui.states`), to these prompts too."""

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
    options    arguments that begin so belong to another command: {"--file": "batch"}
    unavailable  why it cannot be used now; "" when it can
    """

    name: str
    help: str
    handler: Handler
    argument: str = ""
    aliases: tuple[str, ...] = ()
    complete: Completer = _nothing
    options: Mapping[str, str] = field(default_factory=dict)
    unavailable: Reason = _always

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
        first, _, rest = argument.partition(" ")
        if first in command.options:
            command, argument = self.get(command.options[first]), rest.strip()
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
