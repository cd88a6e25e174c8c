"""What the first correction needs besides the question: computed while nothing is asked."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from engine import fisher, methods
from engine.contexts import contexts
from engine.correct import hparams_of
from engine.events import Event

if TYPE_CHECKING:
    from engine.lm import LM


def prepare(
    lm: LM, method: str, overrides: Mapping[str, str], seed: int
) -> Generator[Event, None, None]:
    """Key statistics and contexts of `method`, where it uses them.

    Leaves no hook on the model when it yields; both are kept in the cache, and a correction
    that begins meanwhile goes on from what was collected.
    """
    info = methods.get(method)
    if lm.arch.model_type not in info.families:
        return
    hp, _ = hparams_of(lm, info, overrides, seed)
    layers = getattr(hp, "layers", None) or ([hp.layer] if hasattr(hp, "layer") else [])
    if hasattr(hp, "tokens") and layers:
        yield from lm.statistics.moments(layers, text=hp.text, tokens=hp.tokens)
    if getattr(hp, "fisher", False):
        yield from fisher.preconditioner(lm, hp.place(lm), text=hp.text)
    if hasattr(hp, "contexts") and not lm.encoder_decoder:  # whose are not made but read
        yield from contexts(lm, hp.contexts, seed)
