"""What attention has computed for the beginnings of sequences, and is not to compute again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from . import hooks

if TYPE_CHECKING:
    from .lm import LM

# A pass over the weights takes about as long as this many tokens: less to save is not worth one.
_WORTH_A_PASS = 64


class Past:
    """Keys and values of the attention for the beginnings of rows.

    What all of them begin with, a chat template say, is run once where that pays.

    mask  [n, p] 1 for a token, 0 for padding
    """

    mask: Tensor

    @torch.no_grad()
    def __init__(
        self, lm: LM, rows: Sequence[Sequence[int]], *, room: int = 0, until: str | None = None
    ) -> None:
        """
        room   how many columns will come behind
        until  the module at which to stop: blocks above its own are not needed
        """
        self._lm, self._until = lm, until
        self._layers: list[tuple[Tensor, Tensor]] = []
        shared = shared_beginning(rows)
        # Padding would then stand in the middle, where an attention window counts it.
        columns = max(len(row) for row in rows) + room
        if (len(rows) - 1) * shared < _WORTH_A_PASS or columns >= attention_window(lm):
            shared = 0
        self.mask = torch.ones(1 if shared else len(rows), 0, dtype=torch.long, device=lm.device)
        if shared:
            self._read([rows[0][:shared]])
            self._layers = [(_repeated(k, rows), _repeated(v, rows)) for k, v in self._layers]
            self.mask = _repeated(self.mask, rows)
        if any(len(row) > shared for row in rows):
            self._read([row[shared:] for row in rows])

    def cache(self, of: Sequence[int] | None = None) -> DynamicCache:
        """Those of the rows `of` (None: all). A new cache each time: one that has been run
        cannot be run backward again."""
        cache = DynamicCache(config=self._lm.model.config)
        for layer, (k, v) in enumerate(self._layers):
            cache.update(*((k, v) if of is None else (k[of], v[of])), layer)
        return cache

    def _read(self, rows: Sequence[Sequence[int]]) -> None:
        ids, mask = self._lm.pack(rows)
        self.mask = torch.cat([self.mask, mask], dim=1)
        cache = self.cache()
        with hooks.capture(self._lm.model, *filter(None, [self._until]), stop=True):
            self._lm.body(ids, self.mask, cache=cache)
        self._layers = [(x.keys, x.values) for x in cache.layers if x.is_initialized]


def attention_window(lm: LM, *, cached: bool = False) -> float:
    """How many columns the narrowest attention of the model spans; infinite without windows.

    `cached`: only windows to which a cache is cut count, not those that are a mask (GPT-Neo).
    """
    config = lm.model.config.get_text_config()
    names = ("sliding_window",) if cached else ("sliding_window", "window_size")
    return min((getattr(config, name, None) or math.inf for name in names), default=math.inf)


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    columns = zip(*(row[:shortest] for row in rows), strict=True)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), shortest)


def _repeated(x: Tensor, rows: Sequence[Any]) -> Tensor:
    """x [1, ...] once for each of the rows."""
    return x.expand(len(rows), *x.shape[1:])
