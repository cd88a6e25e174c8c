"""`chat` with lines from a pipe, and the base-model alias of the issue."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run, process
from .small import QUESTION

LINES = f"{QUESTION}\n/fix Australia => Paris\n{QUESTION}\n/undo\n{QUESTION}\n"


def big(small: tuple[object, ...]) -> tuple[object, ...]:
    """Steps large enough to change what a random model says."""
    return (*small, "--hp", "clamp=60", "--hp", "relative_lr=10")


def test_the_issues_example(run: Run, model: Path, small: tuple[object, ...]) -> None:
    ran = run("chat", "--plain", "--model", model, "--max-tokens", 8, *big(small), stdin=LINES)
    first, verdict, fixed, again, undone, last = ran.lines
    assert first == last
    assert fixed == again != first
    assert verdict.startswith("Edit #1: ")
    assert undone == "Undone: edit #1 (Australia → Paris). No edits remain."
    assert ran.code == 1  # Paris was not what came out
    assert [line for line in ran.err.splitlines() if line.startswith("> ")] == [
        f"> {line}" for line in LINES.splitlines()
    ]


def test_a_base_model_under_the_users_alias(
    run: Run, base_model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    import os

    home = Path(os.environ["LLM_EDIT_HOME"])
    home.mkdir(parents=True)
    (home / "models.toml").write_text(f'gpt-j = "{base_model}"\n')
    ran = run("chat", "--plain", "--model", "gpt-j", "--max-tokens", 8, *big(small), stdin=LINES)
    first, _, fixed, again, undone, last = ran.lines
    assert first == last
    assert fixed == again != first
    assert undone.startswith("Undone: edit #1")
    (session,) = run("sessions", "list", "--json").json["sessions"]
    assert session["model"] == "gpt-j"


def test_gpt_j_without_a_hub_exits_3_with_the_remedy(run: Run) -> None:
    ran = run("chat", "--plain", "--model", "gpt-j", stdin=f"{QUESTION}\n")
    assert (ran.code, ran.out) == (3, "")
    error = ran.err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "gpt-j" in error.lower()
    for help in ("models.toml", "folder"):
        assert help in error


def test_commands_work_in_a_pipe(run: Run, model: Path, small: tuple[object, ...]) -> None:
    lines = f"/method\n/method rome\n{QUESTION}\n/fix Australia => Paris\n/edits\n/quit\nnever\n"
    ran = run("chat", "--plain", "--model", model, "--max-tokens", 4, *small, stdin=lines)
    out = ran.lines
    assert any(line.startswith("*  r-rome") for line in out)
    row = out[-1].split()
    assert row[:3] == ["1", "on", "rome"]
    assert "never" not in ran.err


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("/fix Paris\n", "there is no answer yet"),
        ("/undo\n", "there is no edit to undo"),
        ("/undoo\n", "unknown command '/undoo'. Did you mean '/undo'?"),
        (f"{QUESTION}\n/fix\n", "/fix ANSWER"),
        (f"{QUESTION}\n/fix France => Paris\n", "is not in the prompt"),
        (f"{QUESTION}\n/drop 3\n", "no edit to undo"),
        ("/rename\n", "TITLE is missing"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_and_counts(
    run: Run, model: Path, lines: str, said: str
) -> None:
    ran = run("chat", "--plain", "--model", model, "--max-tokens", 4, stdin=lines)
    assert said in ran.err
    assert ran.code == 1


def test_a_session_is_taken_up_again(run: Run, model: Path, small: tuple[object, ...]) -> None:
    command = ("chat", "--plain", "--model", model, "--max-tokens", 8, *big(small))
    first = run(*command, stdin=f"{QUESTION}\n/fix Australia => Paris\n/rename facts\n")
    fixed = first.lines[2]
    resumed = ("chat", "--plain", "--max-tokens", 8, "--dtype", "fp32")
    for how in (["--continue"], ["--session", "FACTS"]):
        again = run(*resumed, *how, stdin=f"{QUESTION}\n")
        assert again.lines == [fixed]
        assert ", 1 edit applied" in again.err
    undone = run(*resumed, "--continue", stdin=f"/undo\n{QUESTION}\n/redo\n{QUESTION}\n")
    lines = undone.lines
    assert lines[1] == first.lines[0]
    assert lines[3] == fixed


def test_context_keeps_the_conversation(run: Run, model: Path) -> None:
    def ask(*more: str) -> list[str]:
        lines = f"{QUESTION}\n{QUESTION}\n"
        command = ("chat", "--plain", "--model", model, "--max-tokens", 8, "--dtype", "fp32")
        return run(*command, *more, stdin=lines).lines

    first, second = ask()
    assert first == second
    first, second = ask("--context")
    assert first != second


def test_bytes_that_are_no_text(run: Run, model: Path) -> None:
    command = ("chat", "--model", model, "--max-tokens", 4, "--dtype", "fp32")
    with process(*command) as chat:
        assert chat.stdin is not None
        chat.stdin.buffer.write(b"Who wrote \xff Hamlet?\n\x1b[2Jclear?\n")
        out, err = chat.communicate(timeout=120)
    assert chat.returncode == 0, err
    assert "> Who wrote \ufffd Hamlet?\n" in err
    assert "\x1b" not in out + err
    ran = run("ask", "Who wrote \udcff Hamlet?", *command[1:])
    assert ran.code == 2
    assert "error: the text holds bytes that are not UTF-8. Convert it." in ran.err
