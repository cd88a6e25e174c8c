"""The prompt of plain mode: lines from a person, with completion, history and search.

On a dumb terminal, where nothing that was written can be taken back, it is the terminal itself
that reads a line. prompt_toolkit is imported when there is somebody to ask.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from .assistant import Assistant
from .commands import REGISTRY

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyBindings

TWICE = 2.0  # seconds within which a second Ctrl+C quits


def dumb() -> bool:
    """Whether the terminal can only write on, or what is written goes elsewhere."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "") or not sys.stdout.isatty()


class Reading:
    """Lines until Ctrl+D, or Ctrl+C twice."""

    keys = ""  # what there is to know about writing, for the welcome

    def read(self) -> str:
        """The next line. Raises EOFError, KeyboardInterrupt."""
        raise NotImplementedError

    def ask(self, prompt: str, default: str) -> str:
        """One answer to one question of the program; not kept in the history."""
        raise NotImplementedError

    def remember(self) -> None:
        """Offer what was typed before, in all sessions."""

    def lines(self, say: Callable[[str], None]) -> Iterator[str]:
        """What was written, until the person leaves. say: what they are told in between."""
        interrupted = -TWICE
        while True:
            try:
                yield self.read()
            except EOFError:
                return
            except KeyboardInterrupt:
                now = time.monotonic()
                if now - interrupted < TWICE:
                    return
                interrupted = now
                say("Press Ctrl+C again to quit.")


class DumbPrompt(Reading):
    """The terminal's own lines; one that ends with a backslash goes on in the next.

    out   where prompts are written
    """

    keys = "A backslash at the end of a line goes on in the next, /recall TEXT searches"

    def __init__(self, out: TextIO, lines: TextIO | None = None) -> None:
        self._out = out
        self._lines = lines or sys.stdin

    def read(self) -> str:
        line = self._line("> ")
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{self._line('. ')}"
        return line

    def ask(self, prompt: str, default: str) -> str:
        shown = f"{prompt}[{default}] " if default else prompt
        return self._line(shown).strip() or default

    def _line(self, prompt: str) -> str:
        print(prompt, end="", file=self._out, flush=True)
        try:
            line = self._lines.readline()
        except KeyboardInterrupt:
            print(file=self._out, flush=True)
            raise
        if not line:
            print(file=self._out, flush=True)
            raise EOFError
        return line.rstrip("\r\n")


class Prompt(Reading):
    """Reads lines with completion and history.

    session      where from; the terminal by default
    enter_sends  Enter sends and Alt+Enter begins a new line, or the other way round
    """

    def __init__(
        self,
        assistant: Assistant,
        session: PromptSession[str] | None = None,
        *,
        enter_sends: bool = True,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.shortcuts import CompleteStyle

        other = "begins a new line" if enter_sends else "sends"
        self.keys = f"Alt+Enter {other}, Ctrl+R searches"
        self._assistant = assistant
        self._history = InMemoryHistory()
        self._session = session or PromptSession()
        self._session.history = self._session.default_buffer.history = self._history
        self._session.completer = completer(assistant)
        self._session.key_bindings = bindings(enter_sends)
        self._session.multiline = True
        self._session.complete_while_typing = False
        self._session.tempfile_suffix = ".md"
        self._session.search_ignore_case = True  # Ctrl+R
        self._session.complete_style = CompleteStyle.READLINE_LIKE
        self._session.reserve_space_for_menu = 0  # no blank lines under the prompt

    def remember(self) -> None:
        job = self._assistant.input_history()
        if job.wait(10) and job.result:
            for text in reversed(job.result):
                self._history.append_string(text)

    def read(self) -> str:
        return self._session.prompt("> ")

    def ask(self, prompt: str, default: str) -> str:
        from prompt_toolkit import PromptSession

        once: PromptSession[str] = PromptSession(
            input=self._session.input, output=self._session.output
        )
        return once.prompt(prompt, default=default)


def bindings(enter_sends: bool = True) -> KeyBindings:
    """Enter sends and Alt+Enter begins a new line, or the other way round."""
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    def edit(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()  # what comes back is not sent

    enter, other = (send, newline) if enter_sends else (newline, send)
    writing = ~is_searching  # Enter ends a search by itself
    keys.add("enter", filter=writing)(enter)
    keys.add("c-j", filter=writing)(enter)  # Enter, pressed while an answer is being written
    keys.add("escape", "enter", filter=writing)(other)
    keys.add("c-x", "c-e")(edit)

    return keys


def completer(assistant: Assistant) -> Any:
    """Commands and their arguments, from the one registry."""
    from prompt_toolkit.completion import Completer, Completion

    class Registry(Completer):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterator[Completion]:
            typed = document.text_before_cursor
            for s in REGISTRY.complete(typed, assistant.snapshot()):
                yield Completion(
                    s.insert, start_position=-len(typed), display=s.label, display_meta=s.hint
                )

    return Registry()
