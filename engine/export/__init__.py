"""Corrections for use elsewhere: a merged checkpoint, a LoRA adapter, the facts as text.

    checkpoint   a Hugging Face folder with the edits in its weights, asked again after saving
    adapter      a PEFT adapter: the low-rank patches as they are
    facts        JSON Lines that `llm-edit edit --file` reads
    folder       an output folder that is there whole or not at all
    card         the README.md that goes with a checkpoint or an adapter

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import NotExportable

if TYPE_CHECKING:
    from ..edit import Edit
    from ..requests import Request

FORMATS = {"hf": "a merged checkpoint", "lora": "a LoRA adapter", "jsonl": "a file of facts"}


def named(request: Request) -> str:
    """A fact in a few words."""
    return f"{request.subject or request.prompt} → {request.target_new}"


def require_expressible(edits: Sequence[Edit], form: str) -> None:
    """Raises NotExportable naming every edit with a patch that `form` cannot hold.

    A kind of patch says what can hold it (`exports`); one that does not say is refused, and so
    is an edit that changes the model otherwise than through patches.
    """
    found = []
    for edit in edits:
        kinds = {p.kind for p in edit.patches if form not in getattr(p, "exports", frozenset())}
        if not edit.patches:
            kinds = {"no patch"}
        if kinds:
            facts = ", ".join(named(r) for r in edit.requests)
            found.append(f"{facts} (edit {edit.id}, {edit.method}: {', '.join(sorted(kinds))})")
    if found:
        raise NotExportable(
            f"{FORMATS[form]} cannot hold {len(found)} of the {len(edits)} edits: "
            f"{'; '.join(found)}.",
            "Nothing was written. Take them off (llm-edit undo --edit ID), or export the facts "
            "(--format jsonl).",
        )
