"""The plain front end: lines, the prompt with its keys, the registry of commands."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from engine.errors import BadInput, UnknownName
from engine.events import Loading, Token
from tests.cli.small import LARGE, QUESTION, hparams
from tui.assistant import Assistant, Options
from tui.commands import REGISTRY, split_fix
from tui.console import Narrator, printable, table
from tui.plain import PlainFront, run_lines, run_prompt
from tui.prompt import completer

ENTER, NEWLINE, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"
CTRL_E, CTRL_R, CTRL_X = "\x05", "\x12", "\x18"


@pytest.fixture
def assistant(tiny_folder: Callable[..., Path], tmp_path: Path) -> Iterator[Assistant]:
    made = Assistant(
        Options(
            model=str(tiny_folder("llama", chat=True)),
            dtype="fp32",
            home=tmp_path / "home",
            max_tokens=8,
            hp=hparams(tmp_path, **LARGE),
            prepare=False,
        )
    )
    yield made
    made.close(60)


@dataclasses.dataclass
class Talk:
    """What a person at the prompt typed and saw."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.removesuffix("\n").split("\n")


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


Type = Callable[..., Talk]


@pytest.fixture
def typed(assistant: Assistant, keys: PipeInput) -> Type:
    """`typed("text", ...)`: press these keys at the prompt, then leave with Ctrl+D."""

    def talk(*presses: str) -> Talk:
        keys.send_text("".join(presses) + CTRL_D)
        out, err = io.StringIO(), io.StringIO()
        session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())
        code = run_prompt(assistant, session=session, out=out, err=err)
        return Talk(code, out.getvalue(), err.getvalue())

    return talk


def test_a_question_and_its_answer(typed: Type, assistant: Assistant) -> None:
    talk = typed(QUESTION, ENTER)
    (turn,) = assistant.snapshot().turns
    assert (talk.code, turn.question) == (0, QUESTION)
    assert talk.lines[0].rstrip() == printable(turn.answer)
    assert "/help" in talk.err


def test_alt_enter_begins_a_new_line(typed: Type, assistant: Assistant) -> None:
    typed("one", NEWLINE, "two", ENTER)
    assert [t.question for t in assistant.snapshot().turns] == ["one\ntwo"]


def test_enter_can_begin_a_new_line(assistant: Assistant, keys: PipeInput) -> None:
    keys.send_text(f"one{ENTER}two{NEWLINE}{CTRL_D}")
    session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())
    err = io.StringIO()
    run_prompt(assistant, session=session, enter_sends=False, out=io.StringIO(), err=err)
    assert [t.question for t in assistant.snapshot().turns] == ["one\ntwo"]
    assert "Alt+Enter sends" in err.getvalue()


def test_ctrl_r_searches_what_was_written_in_all_sessions(
    typed: Type, assistant: Assistant, keys: PipeInput
) -> None:
    typed("Who was Emma?", ENTER, "second question?", ENTER, "third one?", ENTER)
    other = Assistant(dataclasses.replace(assistant.options, session=None))
    try:
        keys.send_text(f"{CTRL_R}emma{ENTER}{ENTER}{CTRL_D}")  # the first Enter ends the search
        session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())
        run_prompt(other, session=session, out=io.StringIO(), err=io.StringIO())
        assert [t.question for t in other.snapshot().turns] == ["Who was Emma?"]
    finally:
        other.close(60)


def test_what_was_written_in_the_editor_is_not_sent_yet(
    assistant: Assistant, keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, written = tmp_path / "editor", tmp_path / "written"
    editor.write_text(f'#!/bin/sh\nprintf " and" >> "$1"\ncp "$1" "{written}"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())

    def press() -> None:
        keys.send_text("one" + CTRL_X + CTRL_E)
        while session.default_buffer.text != "one and":
            time.sleep(0.01)
        keys.send_text(" more" + ENTER + CTRL_D)

    threading.Thread(target=press, daemon=True).start()
    run_prompt(assistant, session=session, out=io.StringIO(), err=io.StringIO())
    assert written.read_text() == "one and"
    assert [t.question for t in assistant.snapshot().turns] == ["one and more"]


@pytest.fixture
def dumbly(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> Type:
    """`dumbly("line", ...)`: lines on a dumb terminal, which edits them itself."""

    def talk(*lines: str) -> Talk:
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        out, err = io.StringIO(), io.StringIO()
        code = run_prompt(assistant, out=out, err=err)
        return Talk(code, out.getvalue(), err.getvalue())

    return talk


def test_a_dumb_terminal(dumbly: Type, assistant: Assistant) -> None:
    lines = (
        "What is the capital\\",
        "of Australia?",
        "/fix Rome",
        "",
        "/recall OF AUS",
        "/recall no",
    )
    talk = dumbly(*lines, "/quit", "never")
    (turn,), (edit,) = assistant.snapshot().turns, assistant.snapshot().edits
    assert turn.question == "What is the capital\nof Australia?"
    assert (edit.subject, edit.target) == ("Australia", "Rome")
    assert "Subject: [Australia] " in talk.err, "the terminal's own line takes it by Enter"
    assert "> . " in talk.err
    assert f"{turn.question}\nNothing like that was written before.\n" in talk.out
    assert "A backslash at the end of a line" in talk.err
    assert "\x1b" not in talk.out + talk.err
    assert talk.code == 0


def test_lines_typed_ahead_are_sent_too(typed: Type, assistant: Assistant) -> None:
    """While an answer is written the terminal turns Enter into a line feed."""
    typed("one\n", "two\n")
    assert [t.question for t in assistant.snapshot().turns] == ["one", "two"]


def test_a_correction_with_its_subject_confirmed(typed: Type, assistant: Assistant) -> None:
    talk = typed(QUESTION, ENTER, "/fix Paris", ENTER, ENTER, "/undo", ENTER)
    (edit,) = assistant.snapshot().edits
    assert (edit.subject, edit.target, edit.state) == ("Australia", "Paris", "undone")
    assert any(line.startswith("Edit #1: ") for line in talk.lines)
    assert "Undone: edit #1 (Australia → Paris). No edits remain." in talk.lines
    assert talk.lines[-1].startswith("The answer is again: ")


def test_a_correction_that_is_asked_for(typed: Type, assistant: Assistant) -> None:
    backspaces = "\x7f" * len("Australia")
    talk = typed(QUESTION, ENTER, "/fix", ENTER, "Paris", ENTER, backspaces, "capital", ENTER)
    (edit,) = assistant.snapshot().edits
    assert (edit.subject, edit.target) == ("capital", "Paris")
    assert f"Question: {QUESTION}" in talk.lines


def test_nothing_said_leaves_it_as_it_was(typed: Type, assistant: Assistant) -> None:
    talk = typed(QUESTION, ENTER, "/fix", ENTER, ENTER)
    assert assistant.snapshot().edits == ()
    assert "Left as it was." in talk.err


def test_ctrl_c_twice_leaves_once_does_not(typed: Type, assistant: Assistant) -> None:
    talk = typed("half a line", CTRL_C, QUESTION, ENTER)
    assert "Press Ctrl+C again to quit." in talk.err
    assert [t.question for t in assistant.snapshot().turns] == [QUESTION]


def test_ctrl_c_twice(typed: Type, assistant: Assistant) -> None:
    talk = typed(CTRL_C, CTRL_C, QUESTION, ENTER)
    assert talk.code == 0
    assert assistant.snapshot().turns == ()


def test_history_comes_from_all_sessions(
    typed: Type, assistant: Assistant, keys: PipeInput
) -> None:
    typed("first question?", ENTER, "second question?", ENTER)
    other = Assistant(dataclasses.replace(assistant.options, session=None))
    try:
        keys.send_text(UP + UP + ENTER + CTRL_D)
        session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())
        run_prompt(other, session=session, out=io.StringIO(), err=io.StringIO())
        assert [t.question for t in other.snapshot().turns] == ["first question?"]
    finally:
        other.close(60)


def test_a_failed_load_is_said_and_its_code_returned(tmp_path: Path) -> None:
    broken = Assistant(Options(model=str(tmp_path / "none"), home=tmp_path / "home"))
    err = io.StringIO()
    try:
        assert run_lines(broken, ["hello"], out=io.StringIO(), err=err) == 3
        assert err.getvalue().startswith("error: there is no ")
    finally:
        broken.close()


def test_ctrl_c_stops_the_answer_and_keeps_it(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt arrives while the answer is being followed."""
    out, err = io.StringIO(), io.StringIO()
    front = PlainFront(assistant, out=out, err=err, ask=lambda prompt, default: default)
    front.begin()
    fed = Narrator.feed
    interrupts = iter([KeyboardInterrupt])

    def interrupted(self: Narrator, event: Any, kind: str) -> None:
        fed(self, event, kind)
        if isinstance(event, Token):
            for error in interrupts:
                raise error

    monkeypatch.setattr(Narrator, "feed", interrupted)
    assistant._conversation.options = dataclasses.replace(assistant.options, max_tokens=5000)
    front.line(QUESTION)
    (turn,) = assistant.snapshot().turns
    assert turn.stopped == "cancelled"
    assert turn.answer
    assert "what was said is kept" in err.getvalue()
    assert not front.failed


def test_ctrl_c_ends_a_pipe(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    fed, out, err = Narrator.feed, io.StringIO(), io.StringIO()

    def interrupted(self: Narrator, event: Any, kind: str) -> None:
        fed(self, event, kind)
        if isinstance(event, Token) and "Press" not in err.getvalue():
            err.write("Press")
            raise KeyboardInterrupt

    monkeypatch.setattr(Narrator, "feed", interrupted)
    assistant._conversation.options = dataclasses.replace(assistant.options, max_tokens=5000)
    with pytest.raises(KeyboardInterrupt):
        run_lines(assistant, [QUESTION, "never asked?"], out=out, err=err)
    assert [t.question for t in assistant.snapshot().turns] == [QUESTION]
    assert "what was said is kept" in err.getvalue()


def test_completion_offers_commands_and_their_arguments(assistant: Assistant) -> None:
    def offered(text: str) -> list[str]:
        found = completer(assistant).get_completions(Document(text), CompleteEvent())
        return [c.text for c in found]

    assert offered("/un") == ["/undo "]
    assert offered("/method r") == ["/method r-rome", "/method rome"]
    assert "/fix " in offered("/")
    assert offered("what is /un") == []
    assert offered("/drop ") == []
    assert "/help undo" in offered("/help ")


def test_numbers_of_active_edits_complete_drop(assistant: Assistant) -> None:
    out = io.StringIO()
    lines = [QUESTION, "/fix Australia => Paris", "/fix Australia => Emma", "/undo"]
    run_lines(assistant, lines, out=out, err=io.StringIO())
    (suggestion,) = REGISTRY.complete("/drop ", assistant.snapshot())
    assert (suggestion.insert, suggestion.label) == ("/drop 1", "1")
    assert suggestion.hint == "Australia → Paris"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("Canberra", ("Canberra", None)),
        ("Australia => Canberra", ("Canberra", "Australia")),
        ("a => b => c", ("c", "a => b")),
        ("=> Canberra", ("Canberra", None)),
        ("", ("", None)),
    ],
)
def test_fix_is_split_at_its_arrow(argument: str, expected: tuple[str, str | None]) -> None:
    assert split_fix(argument) == expected


def test_commands_are_found_by_alias_and_by_their_beginning() -> None:
    assert REGISTRY.get("/exit").name == "quit"
    assert REGISTRY.get("WHY?").name == "why"
    assert REGISTRY.get("/sess").name == "sessions"
    with pytest.raises(UnknownName, match="Did you mean '/redo'"):
        REGISTRY.get("/rdo")
    with pytest.raises(UnknownName):
        REGISTRY.get("/re")  # redo, retry, rename
    with pytest.raises(BadInput, match="takes no argument"):
        REGISTRY.parse("/retry 3")
    with pytest.raises(BadInput, match="N is missing"):
        REGISTRY.parse("/drop")


def test_every_command_has_help_and_is_listed() -> None:
    listed = dict(REGISTRY.sheet())
    assert {"/undo [N]", "/edits [N]", "/drop N", "/quit"} <= set(listed)
    assert all(listed.values())


def test_progress_is_sparse_where_lines_cannot_be_rewritten() -> None:
    err = io.StringIO()
    narrator = Narrator(err)
    for done in range(50):
        narrator.feed(Loading(stage="weights", done=done, total=50, unit="tensors"), "load")
    assert err.getvalue() == "loading the model\n"


def test_progress_rewrites_one_line_on_a_terminal() -> None:
    err = io.StringIO()
    narrator = Narrator(err, rewriting=True)
    narrator.feed(Loading(stage="weights", done=1, total=50, unit="tensors"), "load")
    narrator.line("done")
    assert err.getvalue().startswith("\rloading the model: 1 of 50 tensors")
    assert err.getvalue().endswith("\rdone\n")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x9bc\td\n") == "a�[2Jb��c\td\n"


def test_tables_are_aligned_and_end_without_blanks() -> None:
    assert table(("a", "long head"), [("xyz", "1"), ("", "")]) == ["a    long head", "xyz  1", ""]


def test_reading_lines_begins_before_the_input_ends(assistant: Assistant) -> None:
    """Answers are written as the questions come: a pipe may stay open."""
    out, answered = io.StringIO(), threading.Event()

    def lines() -> Iterator[str]:
        yield QUESTION
        deadline = time.monotonic() + 60
        while not out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        answered.set()

    run_lines(assistant, lines(), out=out, err=io.StringIO())
    assert answered.is_set()
    assert out.getvalue().endswith("\n")
