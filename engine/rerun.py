"""Running a model again and again with a change at one place: all that editing costs.

Only what the change can reach is recomputed. Attention is causal, so keys and values before
the edited position are constant in every layer; the layers below the edit are constant
everywhere; logits are needed at a few positions. `Suffix` uses this, `Full` does not, and
the two agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from . import hooks

if TYPE_CHECKING:
    from .lm import LM


@dataclass(frozen=True)
class Row:
    """A sequence to run.

    ids     tokens fed to the model (prompt and target without its last token)
    lookup  position of the subject's last token, where the change goes in
    wanted  positions whose next-token logits are read, all at `lookup` or behind it
    """

    ids: tuple[int, ...]
    lookup: int
    wanted: tuple[int, ...]


def rerun(lm: LM, rows: Sequence[Row], layer: int, *, fast: bool) -> Full | Suffix:
    """`Suffix` where it applies: not beyond a sliding window, which no cache can be cut to."""
    window = getattr(lm.model.config.get_text_config(), "sliding_window", None)
    longest = max(row.lookup for row in rows)
    if fast and (window is None or longest < window):
        return Suffix(lm, rows, layer)
    return Full(lm, rows, layer)


class Full:
    """Every token of every row, through every layer.

    keys     [n, d_ff] input of the layer's mlp_out at the lookup
    outputs  [n, d]    its output there
    """

    keys: Tensor
    outputs: Tensor

    def __init__(self, lm: LM, rows: Sequence[Row], layer: int) -> None:
        self._lm = lm
        self._site = lm.site("mlp_out", layer)
        self._ids, self._mask = lm.pack([row.ids for row in rows])
        shift = [self._ids.shape[1] - len(row.ids) for row in rows]  # left padding
        self._lookup = torch.tensor([r.lookup + s for r, s in zip(rows, shift, strict=True)])
        self._at = _wanted([[w + s for w in r.wanted] for r, s in zip(rows, shift, strict=True)])
        self._measure()

    def logits(self, delta: Tensor | None) -> Tensor:
        """[wanted, vocab] float32, rows in order, with `delta` [n, d] added at the lookups."""
        with self._changed(delta):
            out = self._lm.forward(self._ids, self._mask, at=self._at)
        return out.logits[0].float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _measure(self) -> None:
        with (
            hooks.capture(self._lm.model, self._site, inputs=True) as keys,
            hooks.capture(self._lm.model, self._site, stop=True) as outputs,
        ):
            self._lm.body(self._ids, self._mask)
        self.keys = self._at_lookup(keys[self._site])
        self.outputs = self._at_lookup(outputs[self._site])

    def _at_lookup(self, x: Tensor) -> Tensor:
        n, t = self._ids.shape
        return x.reshape(n, t, -1)[torch.arange(n), self._lookup].float()

    def _changed(self, delta: Tensor | None) -> Any:
        n, t = self._ids.shape
        where = torch.zeros(n, t, 1, device=self._ids.device)
        where[torch.arange(n), self._lookup] = 1

        def add(_x: Tensor, y: Tensor) -> Tensor:
            assert delta is not None
            return y + (where * delta[:, None]).to(y.dtype).reshape(y.shape)

        return hooks.patched(self._lm.model, {self._site: add} if delta is not None else {})


class Suffix:
    """From the lookup on, from the edited layer up.

    The lookup is column 0 of every row, because what comes before it is in the cache.
    """

    keys: Tensor
    outputs: Tensor

    def __init__(self, lm: LM, rows: Sequence[Row], layer: int) -> None:
        self._lm = lm
        self._site = lm.site("mlp_out", layer)
        prefix = [row.ids[: row.lookup] for row in rows]
        suffix = [row.ids[row.lookup :] for row in rows]
        self._past = _prefix(lm, prefix)
        ids, mask = _right_padded(suffix)
        self._ids = ids.to(lm.device)
        before = self._past[1]
        self._mask = torch.cat([before, mask.to(before)], dim=1)
        self._at = _wanted([[w - row.lookup for w in row.wanted] for row in rows])
        self._below = self._measure([lm.site("block", i) for i in range(layer)])

    def logits(self, delta: Tensor | None) -> Tensor:
        """[wanted, vocab] float32, rows in order, with `delta` [n, d] added at the lookups."""

        def add(_x: Tensor, y: Tensor) -> Tensor:
            assert delta is not None
            z = y.reshape(*self._ids.shape, -1)
            z = torch.cat([z[:, :1] + delta[:, None].to(y.dtype), z[:, 1:]], dim=1)
            return z.reshape(y.shape)

        with ExitStack() as stack:
            stack.enter_context(hooks.skipped(self._lm.model, self._below))
            if delta is not None:
                stack.enter_context(hooks.patched(self._lm.model, {self._site: add}))
            out = self._lm.forward(self._ids, self._mask, cache=self._cache(), at=self._at)
        return out.logits[0].float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _measure(self, below: list[str]) -> dict[str, Any]:
        """Keys and outputs at the lookup; returns what the blocks below put out."""
        model = self._lm.model
        with (
            hooks.raw_outputs(model, *below) as blocks,
            hooks.capture(model, self._site, inputs=True) as keys,
            hooks.capture(model, self._site, stop=True) as outputs,
        ):
            self._lm.body(self._ids, self._mask, cache=self._cache())
        n, s = self._ids.shape
        self.keys = keys[self._site].reshape(n, s, -1)[:, 0].float()
        self.outputs = outputs[self._site].reshape(n, s, -1)[:, 0].float()
        return blocks

    def _cache(self) -> DynamicCache:
        """A new cache each time: one that has been run cannot be run backward again."""
        cache = DynamicCache(config=self._lm.model.config)
        for layer, (k, v) in enumerate(self._past[0]):
            cache.update(k, v, layer)
        return cache


@torch.no_grad()
def _prefix(lm: LM, rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values of every layer for what stands before the lookups, and their mask."""
    if not any(rows):
        return [], torch.ones(len(rows), 0, dtype=torch.long, device=lm.device)
    ids, mask = lm.pack(rows)
    cache = DynamicCache(config=lm.model.config)
    lm.body(ids, mask, cache=cache)
    return [(layer.keys, layer.values) for layer in cache.layers], mask


def _right_padded(rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    ids = [list(row) + [row[-1]] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _wanted(columns: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    rows = [i for i, wanted in enumerate(columns) for _ in wanted]
    return torch.tensor(rows), torch.tensor([c for wanted in columns for c in wanted])
