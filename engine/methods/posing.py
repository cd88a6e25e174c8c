"""What the fine-tuning methods have in common: a plan that is told, examples, then a descent."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import contexts
from ..above import Example, examples
from ..descent import DescentParams
from ..edit import Edit
from ..errors import BadRequest
from ..events import Event
from ..patches import Patch
from .planning import planned

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


@dataclass(frozen=True, eq=False)
class Posed:
    """Some facts as examples.

    texts     the contexts
    examples  per fact its target after the bare prompt, then after each context and the prompt
    began     when setting up began, as of time.perf_counter()
    """

    name: str
    requests: tuple[Request, ...]
    hp: DescentParams
    texts: tuple[str, ...]
    examples: list[Example]
    began: float

    def edit(
        self,
        patches: Sequence[Patch],
        losses: Sequence[float],
        measured: float,
        numbers: dict[str, Any],
        **provenance: Any,
    ) -> Edit:
        """The edit that the descent, which ends now, has come to.

        losses    per step
        measured  when the descent began, as of time.perf_counter()
        """
        seconds = {"setup": measured - self.began, "optimise": time.perf_counter() - measured}
        return Edit(
            method=self.name,
            requests=self.requests,
            patches=tuple(patches),
            hparams=self.hp.to_json(),
            provenance={"contexts": list(self.texts), **provenance},
            numbers={
                **numbers,
                "steps": float(len(losses)),
                "losses": list(losses),
                "seconds": seconds,
            },
        )


def posed(
    lm: LM,
    requests: Sequence[Request],
    hp: DescentParams,
    sites: tuple[str, ...],
    name: str,
    *,
    own: bool = True,
) -> Generator[Event, None, Posed]:
    """The plan, told; then the examples.

    own  see `engine.above.example`
    Raises BadRequest where there is no fact.
    """
    if not requests:
        raise BadRequest(f"{name} needs a fact to edit.")
    began = time.perf_counter()
    texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    prompts = [contexts.prompts(lm, request, texts) for request in requests]
    yield planned(lm, requests, prompts, texts, sites, hp, name)
    given = examples(lm, requests, prompts, end=hp.end, own=own)
    return Posed(name, tuple(requests), hp, texts, given, began)
