"""Shell completion: what is offered, and the scripts in the shells that are installed."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from engine.paths import home
from llm_edit import completing
from llm_edit.__main__ import COMMANDS, cli
from sessions import Store
from sessions.names import session_names

from .conftest import ROOT, Run
from .test_cold_start import HEAVY

PROBE = """
import json, sys
from llm_edit.__main__ import run
try:
    run([])
finally:
    print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""


def offered(line: str) -> list[str]:
    """Words offered behind a line of the shell, the last word being typed; by click itself."""
    from click.shell_completion import ShellComplete

    *before, typed = line.split(" ")
    found = ShellComplete(cli, {}, "llm-edit", "_LLM_EDIT_COMPLETE").get_completions(
        before[1:], typed
    )
    return [item.value for item in found]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(home()) as found:
        yield found


def test_commands_and_options() -> None:
    assert offered("llm-edit ") == list(COMMANDS)
    assert offered("llm-edit se") == ["sessions"]
    assert {"--model", "--method", "--max-tokens"} == set(offered("llm-edit chat --m"))
    assert "show" in offered("llm-edit sessions s")


def test_values() -> None:
    assert offered("llm-edit chat --model smollm2-1") == ["smollm2-1.7b", "smollm2-135m"]
    assert "r-rome" in offered("llm-edit edit --method ")
    assert offered("llm-edit ask --dtype b") == ["bf16"]
    assert offered("llm-edit chat --theme a") == ["auto", "ansi"]
    assert offered("llm-edit completion f") == ["fish"]
    assert offered("llm-edit models info gpt-j") == ["gpt-j"]


def test_a_path_to_a_model_is_left_to_the_shell() -> None:
    (item,) = completing.models(click.Context(cli), click.Option(["--model"]), "./mod")
    assert (item.value, item.type) == ("./mod", "file")
    (item,) = completing.sessions_or_files(click.Context(cli), click.Argument(["s"]), "facts.llm")
    assert (item.value, item.type) == ("facts.llm", "file")


def test_sessions_by_id_or_title(store: Store) -> None:
    model = store.add_model("tiny", "here", "f", "float32")
    one = store.create_session(model, method="r-rome", title="space facts")
    two = store.create_session(model, method="r-rome", title="capitals")
    for command in ("chat --session", "undo --session", "sessions show", "sessions rm"):
        assert offered(f"llm-edit {command} ") == [two.short, one.short, "capitals"]
    assert offered("llm-edit chat --session CAP") == ["capitals"]
    assert offered("llm-edit chat --session space") == [one.short], "its id needs no quotes"
    assert offered(f"llm-edit chat --session {one.short[:4].upper()}")[0] in (one.short, two.short)
    assert offered("llm-edit chat --session nothing") == []
    assert offered("llm-edit replay cap") == ["capitals"]


def test_tab_makes_no_database_and_reads_no_broken_one() -> None:
    assert offered("llm-edit chat --session ") == []
    assert not home().exists()
    home().mkdir(parents=True)
    (home() / "sessions.db").write_text("not a database at all, " * 100)
    assert session_names(home()) == []
    (home() / "models.toml").write_text("broken = [")
    assert offered("llm-edit chat --model g") == []


def test_whatever_names_a_model_method_or_session_is_completed() -> None:
    wanted = {
        "model": {completing.models},
        "method": {completing.methods},
        "session": {completing.sessions, completing.sessions_or_files},
    }
    for path, command in everything("llm-edit", cli):
        for parameter in command.params:
            complete = wanted.get(parameter.name or "")
            if complete is not None and not parameter.is_eager:
                found = parameter._custom_shell_complete
                assert found in complete, f"{path}: {parameter.name}"


def everything(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from everything(f"{path} {name}", found)


@pytest.mark.parametrize("words", ["llm-edit ", "llm-edit chat --session "])
def test_tab_imports_nothing_heavy(words: str) -> None:
    env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split())),
           "_LLM_EDIT_COMPLETE": "bash_complete"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY)], cwd=ROOT, capture_output=True,
        text=True, timeout=60, env=os.environ | env,
    )  # fmt: skip
    assert json.loads(done.stderr.splitlines()[-1]) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(run: Run, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert f"_LLM_EDIT_COMPLETE={shell}_complete" in ran.out
    assert run("completion", "csh").code == 2


def test_the_help_says_where_it_goes(run: Run) -> None:
    said = run("completion", "--help").out
    assert """echo 'eval "$(llm-edit completion bash)"' >> ~/.bashrc""" in said


# -- in real shells ----------------------------------------------------------------------------

START = {"bash": ("--norc", "-i"), "zsh": ("-f", "-i"), "fish": ("--no-config", "-i")}
LOAD = {
    "bash": 'eval "$(llm-edit completion bash)"',
    "zsh": 'autoload -U compinit && compinit -u; eval "$(llm-edit completion zsh)"',
    "fish": "llm-edit completion fish | source",
}


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with the command `llm-edit` in it."""
    script = tmp_path / "bin" / "llm-edit"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m llm_edit "$@"\n')
    script.chmod(0o755)
    return script.parent


class Terminal:
    """A shell with somebody at its keyboard."""

    def __init__(self, shell: str, folder: Path, home: Path) -> None:
        self.said = ""
        keep = {k: v for k, v in os.environ.items() if k.startswith("LLM_EDIT")}
        env = {"PATH": f"{folder}:{os.environ['PATH']}", "TERM": "vt100", "HOME": str(home),
               "LANG": "C.UTF-8", "PS1": "$ "}  # fmt: skip
        pid, self._fd = pty.fork()
        if pid == 0:  # pragma: no cover
            os.chdir(home)
            os.execve(shutil.which(shell) or shell, [shell, *START[shell]], env | keep)
        self._pid = pid

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait(self, wanted: str, seconds: float = 30.0) -> str:
        """What was written until `wanted` is there, without what steers the terminal."""
        end = time.monotonic() + seconds
        while wanted not in (plain := re.sub(r"\x1b[\[(][0-9;?]*[a-zA-Z]?|\r|\x08", "", self.said)):
            ready, _, _ = select.select([self._fd], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{wanted!r} is not in {plain!r}"
            self.said += os.read(self._fd, 4096).decode(errors="replace")
        return plain

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


@pytest.mark.parametrize("shell", sorted(START))
def test_in_a_real_shell(shell: str, command: Path, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    terminal = Terminal(shell, command, tmp_path)
    try:
        terminal.type(f"{LOAD[shell]}; echo load''ed\n")
        terminal.wait("loaded")
        terminal.said = ""
        terminal.type("echo llm-edit; llm-edit mod\t")
        terminal.wait("llm-edit models")
        terminal.type("inf\t")
        terminal.wait("info")
        terminal.type("smollm2-13\t")
        terminal.wait("smollm2-135m")
    finally:
        terminal.close()


def test_bash_is_told_each_word_once(command: Path) -> None:
    script = inspect.cleandoc(
        """
        eval "$(llm-edit completion bash)"
        COMP_WORDS=(llm-edit chat --model gpt2-) COMP_CWORD=3
        _llm_edit_completion llm-edit
        printf '%s\\n' "${COMPREPLY[@]}"
        """
    )
    env = os.environ | {"PATH": f"{command}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["gpt2-medium", "gpt2-large", "gpt2-xl"], done.stderr
