"""Keys that an edit should leave alone: the anchored solve.

A rank-one edit reaches every token in proportion to its response uᵀk / uᵀk*, with u = C⁻¹k*.
Names of the subject's kind respond most (after an edit of Australia, France), and in a chat
each token of the template responds a little, at every question of every chat. So the same
question is asked about other names, and their keys a_i count in the second moment:

    u ∝ (C + (β/n) Σ a_i a_iᵀ)⁻¹ k*

Ours; not in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .evaluate.entities import alike
from .evaluate.probes import neighbours
from .hooks import capture

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request


def names(request: Request, count: int) -> list[str]:
    """Up to `count` names to ask the request's question about, those of its kind first.

    None of them is asked about by the request's neighbours, given or made: what tests an edit
    must not have been held in place by it.
    """
    if request.subject is None or count == 0:
        return []
    tested = " ".join(neighbours(request))
    found = (name for name in alike(request.subject, request.prompt) if name not in tested)
    return [name for name, _ in zip(found, range(count), strict=False)]


@torch.no_grad()
def keys(lm: LM, request: Request, layer: int, count: int) -> Tensor | None:
    """Keys [n, d_ff] at every position of the request's prompt asked about other names.

    What stands before the name is the same in every row, and is taken once. None where there
    is nothing to anchor.
    """
    asked = names(request, count)
    if not asked:
        return None
    assert request.subject is not None
    site = lm.site("mlp_out", layer)
    words = [request.prompt.replace(request.subject, name) for name in asked]
    prompts = [lm.prompt(text, chat=request.chat) for text in words]
    ids, mask = lm.pack([p.ids for p in prompts])
    with capture(lm.model, site, inputs=True, stop=True) as found:
        lm.body(ids, mask)
    kept = mask.bool()
    shared = _shared([p.ids for p in prompts])
    for row, prompt in enumerate(prompts[1:], start=1):
        start = ids.shape[1] - len(prompt.ids)
        kept[row, start : start + shared] = False
    return found[site].reshape(*ids.shape, -1)[kept].float()


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    columns = zip(*rows, strict=False)
    return next(
        (i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, rows))
    )
