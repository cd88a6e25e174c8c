"""The facts of a session as JSON Lines, in the form that `llm-edit edit --file` reads.

Torch-free.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..requests import Fact

FILE = "facts.jsonl"


def lines(facts: Sequence[Fact]) -> str:
    """One JSON object a line, with a line break at the end."""
    return "".join(
        json.dumps(fact.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for fact in facts
    )


def write_facts(facts: Sequence[Fact], folder: Path) -> None:
    """`folder`/facts.jsonl."""
    (folder / FILE).write_text(lines(facts), encoding="utf-8", newline="\n")
