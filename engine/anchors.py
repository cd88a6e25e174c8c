"""Keys that an edit should leave alone: the anchored solve.

A rank-one edit reaches every token in proportion to its response uᵀk / uᵀk*, with u = C⁻¹k*.
Names of the subject's kind respond most (after an edit of Australia, France), and in a chat
each token of the template responds a little, at every question of every chat. So the same
question is asked about other names, and their keys a_i count in the second moment:

    u ∝ (C + (β/n) Σ a_i a_iᵀ)⁻¹ k*

Ours; not in the papers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .evaluate.entities import alike
from .evaluate.probes import neighbours, sentinels
from .events import Event, Loading
from .hooks import capture
from .past import Past, attention_window, shared_beginning
from .rerun import right_padded

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request

_BATCH = 32  # rows at a time, of about the same length: little padding, little memory


def names(request: Request, count: int) -> list[str]:
    """Up to `count` names to ask the request's question about, those of its kind first.

    None of them is asked about by the request's neighbours, given or made, and none makes the
    question one of the sentinels: what tests an edit must not have been held in place by it.
    """
    subject = request.subject
    if subject is None or count == 0:
        return []
    near, far = " ".join(neighbours(request)), sentinels(request)
    found = (
        name
        for name in alike(subject, request.prompt)
        if name not in near and request.prompt.replace(subject, name) not in far
    )
    return [name for name, _ in zip(found, range(count), strict=False)]


def keys(
    lm: LM, requests: Sequence[Request], layers: Sequence[int], count: int
) -> Generator[Event, None, dict[int, Tensor]]:
    """Per layer, ascending, keys [n, d_ff] at every position of the requests' prompts asked about
    other names, one request after the other; {} where there is nothing to anchor.

    All layers are read in one pass. What stands before the name is the same in every row, and is
    run and taken once; but an encoder reads it with what comes behind, and each row whole.
    """
    asked = [(request, names(request, count)) for request in requests]
    total, done = sum(len(own) for _, own in asked), 0
    if not total:
        return {}
    yield Loading(stage="anchors", done=0, total=total, unit="prompts")
    sites = [lm.subject_site("mlp_out", layer) for layer in layers]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for request, own in asked:
        for prompts, seen in _read(lm, request, own, sites):
            for layer, site in zip(layers, sites, strict=True):
                found[layer].append(seen[site])
            done += prompts
            yield Loading(stage="anchors", done=done, total=total, unit="prompts")
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _read(
    lm: LM, request: Request, asked: Sequence[str], sites: Sequence[str]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """A batch of a request's prompts at a time: how many, and the keys at each site."""
    if not asked:
        return
    assert request.subject is not None
    words = [request.prompt.replace(request.subject, name) for name in asked]
    rows = [lm.prompt(text, chat=request.chat).ids for text in words]
    shared = 0 if lm.encoder_decoder else shared_beginning(rows)
    if shared >= attention_window(lm):
        shared = 0
    past = None if lm.encoder_decoder else Past(lm, [rows[0][:shared]], until=sites[-1])
    behind = sorted((row[shared:] for row in rows[1:] if len(row) > shared), key=len)
    nothing = None if past is None else Past(lm, [()])
    yield len(rows) - len(behind), _seen(lm, sites, [rows[0]], nothing)
    for start in range(0, len(behind), _BATCH):
        some = behind[start : start + _BATCH]
        yield len(some), _seen(lm, sites, some, past)


@torch.no_grad()
def _seen(
    lm: LM, sites: Sequence[str], rows: Sequence[Sequence[int]], past: Past | None
) -> dict[str, Tensor]:
    """Inputs [tokens, d_ff] of each module at every token of the rows, which stand behind the
    one row of `past`; an encoder has no past."""
    ids, mask = (x.to(lm.device) for x in right_padded(rows))
    with capture(lm.model, *sites, inputs=True, stop=True) as found:
        if past is None:
            lm.body(ids, mask)
        else:
            before = past.mask.expand(len(rows), -1)
            lm.body(ids, torch.cat([before, mask], dim=1), cache=past.cache([0] * len(rows)))
    return {site: x.reshape(*ids.shape, -1)[mask.bool()].float() for site, x in found.items()}
