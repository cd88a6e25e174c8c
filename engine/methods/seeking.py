"""What the closed-form methods have in common: a plan that is told, values, then a solve."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import contexts, norm_anchor
from ..config import HParams
from ..edit import Edit
from ..events import Event
from ..patches import Patch
from ..tokens import Rendered
from ..values import Value, ValueParams, optimise_values
from .planning import planned

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, eq=False)
class Sought:
    """The values of some facts, and what they were sought with.

    texts    the contexts
    prompts  per fact the bare one, then one per context
    setup, optimise  seconds
    """

    texts: tuple[str, ...]
    prompts: list[list[Rendered]]
    values: list[Value]
    setup: float
    optimise: float
    ended: float  # as of time.perf_counter()

    def edit(
        self,
        name: str,
        requests: Sequence[Request],
        patches: Sequence[Patch],
        hp: HParams,
        numbers: dict[str, Any],
        **provenance: Any,
    ) -> Edit:
        """The edit that the solve behind it, which ends now, has made of the values."""
        solve = time.perf_counter() - self.ended
        seconds = {"setup": self.setup, "optimise": self.optimise, "solve": solve}
        return Edit(
            method=name,
            requests=tuple(requests),
            patches=tuple(patches),
            hparams=hp.to_json(),
            provenance={"contexts": list(self.texts), **provenance},
            numbers={**numbers, "seconds": seconds},
        )


def sought(
    lm: LM,
    requests: Sequence[Request],
    hp: ValueParams,
    sites: tuple[str, ...],
    name: str,
    began: float,
) -> Generator[Event, None, Sought]:
    """The plan, told; then v* for every fact.

    began  when setting up began, as of time.perf_counter()
    """
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed, text=hp.text)
    ready = time.perf_counter()
    prompts = [contexts.prompts(lm, request, texts) for request in requests]
    yield planned(lm, requests, prompts, texts, sites, hp, name)
    values = yield from optimise_values(lm, requests, prompts, hp)
    if hp.norm_anchor:
        values = yield from norm_anchor.anchored(lm, requests, texts, values, hp)
    ended = time.perf_counter()
    return Sought(texts, prompts, values, ready - began, ended - ready, ended)
