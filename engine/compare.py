"""The same prompts read by one model in several states.

A state is a set of patches: the model itself, with its weights, is loaded once and never
written. No torch is imported with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lm import LM
    from .patches import Patch
    from .tokens import Rendered

TOP = 10  # next tokens told of each prompt


@dataclass(frozen=True)
class Reading:
    """What a state of the model makes of a prompt.

    answer  greedy, decoded in one batch with the other prompts of the call
    top     the likeliest next tokens and their probabilities, likeliest first
    """

    answer: str
    top: tuple[tuple[str, float], ...]


def read(
    lm: LM,
    patches: Iterable[Patch],
    prompts: Sequence[Rendered],
    *,
    max_tokens: int = 64,
    top: int = TOP,
    stopped: Callable[[], bool] | None = None,
) -> list[Reading]:
    """Read the prompts with these patches in force; afterwards nothing of them is left.

    stopped  is asked before every token; once it says True the rest is left out, and the
             readings are not whole

    The same prompts in the same call give readings that compare: only the patches differ.
    Probabilities are computed one prompt at a time, in float32.
    """
    if not prompts:
        return []
    from .generate import batched

    with lm.active(patches):
        answers = batched(lm, prompts, max_tokens, stopped)
        found = lm.logits(prompts).float().softmax(-1).topk(top)
    rows = zip(answers, found.indices.tolist(), found.values.tolist(), strict=True)
    return [
        Reading(answer, tuple((_token(lm, i), p) for i, p in zip(ids, chances, strict=True)))
        for answer, ids, chances in rows
    ]


def _token(lm: LM, id: int) -> str:
    """The text of a token; the name of one that ends a turn or is special."""
    text: str = lm.tokenizer.decode([id], skip_special_tokens=False)
    return text
