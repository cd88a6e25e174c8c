"""The facts of many closed-form edits as one system for each site.

The patches keep the keys that they were solved for, and where those were to go from the unedited
map, so that nothing is sought again: `closed_form.resolve`. Other names that an edit was held off
(engine/anchors.py) are held off here too, fewer of them for each fact where facts are many.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import anchors, closed_form
from .config import HParams, above_zero
from .edit import Edit
from .events import Event, Loading
from .ledger import RESOLVED
from .patches import LowRank, Patch

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request

NAMES = 400  # other names in all, or one for each fact


@dataclass(frozen=True, kw_only=True)
class JointParams(HParams):
    """How exactly the facts are asked for, against what ordinary keys are worth."""

    ridge: float = 0.1  # 0: exactly; 1: as MEMIT
    weight: float | None = None  # λ; None: relative_weight · d_ff
    relative_weight: float = 1.0
    text: str = "wikipedia-vital"  # what C is measured on
    tokens: int = 60_000
    anchors: int | None = None  # other names that each fact is held off; None: as it was when it
    # was made, fewer where facts are many
    anchor_weight: float = 1000.0  # β

    def __post_init__(self) -> None:
        above_zero(self, "weight", "relative_weight")
        if self.ridge < 0 or (self.anchors or 0) < 0:
            raise ValueError("'ridge' and 'anchors' must not be below 0.")


def solved_again(
    lm: LM, edits: Sequence[Edit], hp: JointParams, beside: Sequence[Patch] = ()
) -> Generator[Event, None, Edit]:
    """The edit that takes the place of `edits`, which are all `resolvable`; nothing is asked.

    beside  patches of other edits, which go on acting
    Raises SingularCovariance, EditFailed.
    """
    count, held = yield from _anchors(lm, edits, hp)
    patches = yield from _solved(lm, edits, hp, held, beside)
    requests = tuple(request for edit in edits for request in edit.requests)
    return Edit(
        method=RESOLVED,
        requests=requests,
        patches=tuple(patches),
        hparams={**hp.to_json(), "anchors": count},
        numbers={"facts": len(requests), "edits": len(edits)},
        supersedes=tuple(edit.id for edit in edits),
    )


def sites_of(edits: Sequence[Edit]) -> tuple[str, ...]:
    """Every site that one of them changes."""
    return tuple(dict.fromkeys(patch.site for edit in edits for patch in edit.patches))


def _anchors(
    lm: LM, edits: Sequence[Edit], hp: JointParams
) -> Generator[Event, None, tuple[int, dict[int, Tensor]]]:
    """How many other names a fact is held off at most, and per layer their keys [m, d_ff]: at the
    layers that an edit changes, those of its own facts."""
    given = [
        int(e.hparams.get("anchors") or 0) if hp.anchors is None else hp.anchors for e in edits
    ]
    facts = sum(len(edit.requests) for edit, asked in zip(edits, given, strict=True) if asked)
    count = max(given, default=0)
    if hp.anchors is None and facts:
        count = min(count, max(1, NAMES // facts))
    groups: dict[tuple[tuple[int, ...], int], list[Request]] = {}
    for edit, asked in zip(edits, given, strict=True):
        if asked:
            layers = tuple(sorted(_layers(lm)[site] for site in sites_of([edit])))
            groups.setdefault((layers, min(asked, count)), []).extend(edit.requests)
    found: dict[int, list[Tensor]] = {}
    for (layers, names), requests in groups.items():
        for layer, keys in (yield from anchors.keys(lm, requests, layers, names)).items():
            found.setdefault(layer, []).append(keys)
    return count, {layer: torch.cat(parts) for layer, parts in found.items()}


def _layers(lm: LM) -> dict[str, int]:
    """The layer of each site that closed forms edit."""
    stack = lm.arch.reader
    return {stack.site("mlp_out", layer): layer for layer in range(stack.n_layers)}


def _solved(
    lm: LM,
    edits: Sequence[Edit],
    hp: JointParams,
    held: Mapping[int, Tensor],
    beside: Sequence[Patch],
) -> Generator[Event, None, list[LowRank]]:
    """What takes the place of the patches of all edits, site by site."""
    width, sites, layers = lm.arch.reader.mlp_width, sites_of(edits), _layers(lm)
    moments = yield from lm.statistics.moments(
        sorted(layers[site] for site in sites), text=hp.text, tokens=hp.tokens
    )
    weight = hp.relative_weight * width if hp.weight is None else hp.weight
    found = []
    for done, site in enumerate(sites):
        yield Loading(stage="layers", done=done, total=len(sites), unit="layers")
        there = [p for e in edits for p in e.patches if isinstance(p, LowRank) and p.site == site]
        none, layer = torch.empty(0, width, device=lm.device), layers[site]
        solve = closed_form.weighted(
            moments[layer], weight, none, held.get(layer), hp.anchor_weight
        )
        others = [patch for patch in beside if patch.site == site]
        again = closed_form.resolve(there, solve, hp.ridge, others)
        found += _joined(again)
    return found


def _joined(patches: Sequence[LowRank]) -> list[LowRank]:
    """As few patches as hold them: one for those whose facts have as many keys each."""
    by_count: dict[int, list[LowRank]] = {}
    for patch in patches:
        assert patch.keys is not None
        by_count.setdefault(patch.keys.shape[1], []).append(patch)
    return [
        LowRank(
            same[0].site,
            torch.cat([p.A for p in same], dim=1),
            torch.cat([p.B for p in same]),
            torch.cat([p.keys for p in same if p.keys is not None]),
            torch.cat([p.moves for p in same if p.moves is not None], dim=1),
        )
        for same in by_count.values()
    ]
