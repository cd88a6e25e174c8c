"""The real command line on tiny models; nothing is downloaded."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .small import hparams

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command did: exit code and the lines of both streams."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Of stdout. Random models say odd line separators, which are no ends of lines here."""
        return self.out.removesuffix("\n").split("\n")

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.lines
        return json.loads(line)


Run = Callable[..., Ran]


class _Pipe(io.StringIO):
    """A stdin that is no terminal."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("edit", ..., stdin="...")`: a command line in this process."""
    from llm_edit.__main__ import run as run_command

    def carry_out(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", _Pipe(stdin))
        capsys.readouterr()
        code = run_command([str(a) for a in arguments])
        found = capsys.readouterr()
        return Ran(code, found.out, found.err)

    return carry_out


@pytest.fixture
def model(tiny_folder: Callable[..., Path]) -> Path:
    """A tiny chat model."""
    return tiny_folder("llama", chat=True)


@pytest.fixture
def base_model(tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny base model of GPT-J's family, with room for long prompts."""
    folder = tmp_path / "gptj"
    shutil.copytree(tiny_folder("gptj"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 2048}))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> tuple[object, ...]:
    """Options that make an edit of a tiny model quick."""
    settings = (item for k, v in hparams(tmp_path).items() for item in ("--hp", f"{k}={v}"))
    return ("--dtype", "fp32", *settings)


def one_line(err: str) -> str:
    """The one error that was said, the last line; progress before it does not count."""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.splitlines()[-1] == line
    assert "Traceback" not in err
    return line


def process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A command line in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "llm_edit", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,
        **options,
    )


def _hear_ctrl_c() -> None:
    """What a shell starts in the background is deaf to Ctrl+C, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
