"""What the first correction needs besides the question: computed while nothing is asked."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from engine import fisher, methods
from engine.contexts import contexts
from engine.correct import hparams_of
from engine.events import Event

if TYPE_CHECKING:
    from engine.lm import LM

log = logging.getLogger(__name__)


class Preparing:
    """The work of `prepare` for one method, which the engine's thread does while it is idle."""

    def __init__(self, lm: LM, method: str, overrides: Mapping[str, str], seed: int) -> None:
        self.method = method
        self.work = prepare(lm, method, overrides, seed)

    def ended(self, method: str) -> Generator[Event, None, None]:
        """Bring the work to its end for a correction with `method`, which would do the same, and
        would wait forever for a download that the suspended work holds. What was begun for another
        method is given up.

        Not `yield from`: a cancelled correction must leave the work as it is.
        """
        if method != self.method:
            self.work.close()
            return
        try:
            for event in self.work:  # noqa: UP028
                yield event
        except Exception as error:  # the method itself says it, if it needs what is missing
            log.warning("preparing failed: %s", error)


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
