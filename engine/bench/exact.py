"""Exact undo: the logits of 20 fixed prompts, compared bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import EditFailed
from ..generate import begin
from ..lm import LM

# A mix on purpose: facts, prose, questions, code, numbers, other scripts, one very short and
# one that repeats itself. Their number and wording are part of what the reports claim.
STATEMENTS = (
    "The capital of France is",
    "The Eiffel Tower is located in the city of",
    "Water is made of hydrogen and",
    "The mother tongue of Danielle Darrieux is",
    "Once upon a time there was a miller who had",
    "She opened the letter, read it twice, and",
    "In 1969, the first people to walk on the Moon were",
    "def fibonacci(n):\n    if n < 2:\n        return",
    "SELECT name, price FROM products WHERE",
    "1, 1, 2, 3, 5, 8, 13,",
    "12 + 30 =",
    "Der schnelle braune Fuchs springt über den",
    "La capital de España es",
    "東京は日本の",
    "the the the the the the the the",
    "A",
)
QUESTIONS = (
    "What is the capital of Australia?",
    "Who wrote Romeo and Juliet?",
    "Explain in one sentence why the sky is blue.",
    "Write a short poem about rain.",
)


class UndoNotExact(EditFailed):
    """Logits after an undo differ from those of the model before any edit."""


def fixed_logits(lm: LM) -> Tensor:
    """Next-token logits of the 20 prompts, [20, vocab], from the shortest to the longest; in the
    same batches of alike lengths every time."""
    prompts = [lm.statement(text).ids for text in STATEMENTS]
    prompts = sorted(prompts + [lm.render(question).ids for question in QUESTIONS], key=len)
    batches = (prompts[:12], prompts[12:16], prompts[16:])
    return torch.cat([begin(lm, *lm.pack(rows))[0] for rows in batches])


def check_undone(lm: LM, fresh: Tensor, edit: str) -> None:
    """Compare with the fresh model's logits. Raises UndoNotExact naming the edit."""
    now = fixed_logits(lm)
    if not torch.equal(now, fresh):
        rows = int((now != fresh).any(dim=1).sum())
        worst = float((now.float() - fresh.float()).abs().max())
        raise UndoNotExact(
            f"after undoing edit {edit} the logits of {rows} of {len(fresh)} fixed prompts "
            f"differ from the fresh model's, by up to {worst:.3g}."
        )
