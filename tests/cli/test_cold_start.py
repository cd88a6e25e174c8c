"""What only looks must be quick: neither torch nor textual is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "textual", "huggingface_hub")

PROBE = """
import json, sys
from llm_edit.__main__ import run
sys.stdout, out = open(sys.argv[1], "w"), sys.stdout
code = run(sys.argv[2:])
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps([code, heavy]), file=out)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["chat", "--help"],
        ["edit", "--help"],
        ["bench", "--help"],
        ["trace", "--help"],
        ["tune", "--help"],
        ["methods"],
        ["methods", "--json"],
        ["models", "list"],
        ["models", "info", "gpt-j"],
        ["config", "show"],
        ["config", "path"],
        ["config", "keys"],
        ["config", "validate"],
        ["sessions", "list"],
        ["sessions", "--help"],
        ["completion", "bash"],
        ["export", "--help"],
        ["export", "lost", "--format", "jsonl", "--out", "nowhere"],
        ["sessions", "export", "--help"],
        ["sessions", "import", "lost.llmedit"],
        ["frobnicate"],
        ["edit", "a prompt", "--target", ""],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), str(tmp_path / "out"), *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    code, heavy = json.loads(found.stdout)
    assert heavy == []
    wrong = arguments[0] in ("frobnicate", "edit", "export") or "lost.llmedit" in arguments
    assert code == (2 if wrong and "--help" not in arguments else 0)


def test_a_database_that_is_up_to_date_is_opened_without_sqlite_utils(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from sessions.store import Store
Store.open(Path(sys.argv[1])).close()
print("sqlite_utils" in sys.modules)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
        for _ in range(2)
    ]
    assert said == ["True\n", "False\n"]  # it is made by sqlite-utils
