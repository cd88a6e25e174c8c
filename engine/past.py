"""What attention has computed for the beginnings of sequences, and is not to compute again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

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

    What rows begin with alike, a chat template or one of the contexts of many facts, say, is run
    once where that pays.

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
        lengths = heads(rows)
        # Padding may then stand in the middle, where an attention window counts it.
        if max(lengths) + _longest(rows, lengths) + room >= attention_window(lm):
            lengths = [0] * len(rows)
        own = [tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)]
        once = {head: i for i, head in enumerate(dict.fromkeys(own))}
        self.mask = torch.ones(len(once), 0, dtype=torch.long, device=lm.device)
        if any(lengths):
            self._read(list(once))
        of = [once[head] for head in own]
        self._layers = [(k[of], v[of]) for k, v in self._layers]
        self.mask = self.mask[of]
        if _longest(rows, lengths):
            self._read([row[length:] for row, length in zip(rows, lengths, strict=True)])

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


def heads(rows: Sequence[Sequence[int]]) -> list[int]:
    """How many tokens of each row to run once for all rows that begin with them.

    Beginnings that so many rows share, for the number with which the fewest tokens run.
    """
    order = sorted(range(len(rows)), key=lambda i: list(rows[i]))
    best, least = [0] * len(rows), len(rows) * max(len(row) for row in rows)
    many = len(rows)
    while many > 1:
        lengths = [0] * len(rows)
        for start in range(len(rows) - many + 1):
            group = order[start : start + many]
            shared = shared_beginning([rows[group[0]], rows[group[-1]]])
            for i in group:
                lengths[i] = max(lengths[i], shared)
        run = _tokens(rows, lengths) + _WORTH_A_PASS
        if run < least:
            best, least = lengths, run
        many //= 2
    return best


def _tokens(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """How many run, padding among them."""
    once = {tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)}
    return len(once) * max(lengths) + len(rows) * _longest(rows, lengths)


def _longest(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """The longest of what is behind the heads."""
    return max(len(row) - length for row, length in zip(rows, lengths, strict=True))


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    columns = zip(*(row[:shortest] for row in rows), strict=True)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), shortest)
