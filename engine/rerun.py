"""Running a model again and again with a change at one place: all that editing costs.

Only what the change can reach is recomputed. Attention is causal, so keys and values before
the edited position are constant in every layer; the layers below the edit are constant
everywhere; logits are needed at a few positions. `Suffix` uses this, `Full` does not, and
the two agree to rounding. In an encoder-decoder the subject is read by the encoder, where every
position sees all others: `Encoded` leaves out the blocks below the edit, and no positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from . import hooks
from .past import Past, attention_window

if TYPE_CHECKING:
    from .lm import LM


@dataclass(frozen=True)
class Row:
    """A sequence to run.

    ids      tokens fed to the model (prompt and target without its last token)
    lookup   position of the subject's last token, where the change goes in
    wanted   positions whose next-token logits are read, all at `lookup` or behind it
    decoded  of an encoder-decoder: what the decoder reads, its start token first. `ids` are the
             encoder's then, the prompt alone, and `wanted` are positions in `decoded`.
    """

    ids: tuple[int, ...]
    lookup: int
    wanted: tuple[int, ...]
    decoded: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a change goes in: the output of a module, or of several, a part for each.

    layers  of the stack that reads the subject, from the lowest
    at      which output of each: the MLP's, the block's, or those of both parts of the block
    """

    layers: Sequence[int]
    at: Literal["mlp_out", "block", "attn_out+mlp_out"] = "mlp_out"

    def sites(self, lm: LM) -> tuple[str, ...]:
        """The modules, in the order of the change's parts."""
        roles = self.at.split("+")
        return tuple(lm.subject_site(role, layer) for layer in self.layers for role in roles)

    @property
    def below(self) -> int:
        """So many blocks put out what they did before."""
        return self.layers[0] + (self.at == "block")


def rerun(lm: LM, rows: Sequence[Row], place: Place, *, fast: bool) -> Full | Suffix:
    """`Suffix` where it applies: not beyond a sliding window, which no cache can be cut to, and
    not where an encoder reads the rows."""
    if lm.encoder_decoder:
        return Encoded(lm, rows, place, fast=fast)
    if fast and max(row.lookup for row in rows) < attention_window(lm, cached=True):
        return Suffix(lm, rows, place)
    return Full(lm, rows, place)


class Full:
    """Every token of every row, through every layer.

    keys     [n, d_ff] input of the last layer's mlp_out at the lookup
    outputs  [n, D]    output, there, of the module that the change is added to (D = d); of p
             modules one behind the other (D = p d), as the change then is
    """

    keys: Tensor
    outputs: Tensor

    def __init__(self, lm: LM, rows: Sequence[Row], place: Place) -> None:
        self._lm = lm
        self._mlp, self._sites = lm.subject_site("mlp_out", place.layers[-1]), place.sites(lm)
        self._ids, self._mask = lm.pack([row.ids for row in rows])
        shift = [self._ids.shape[1] - len(row.ids) for row in rows]  # left padding
        self._lookup = torch.tensor([r.lookup + s for r, s in zip(rows, shift, strict=True)])
        self._wanted = [[w + s for w in r.wanted] for r, s in zip(rows, shift, strict=True)]
        self._measure()

    def logits(self, delta: Tensor | None, of: Sequence[int] | None = None) -> Tensor:
        """[wanted, vocab] float32 of the rows `of` (None: all), in that order, with `delta`
        [len(of), D] added at their lookups."""
        chosen = list(range(len(self._wanted)) if of is None else of)
        here = torch.zeros(len(chosen), self._ids.shape[1], 1, device=self._ids.device)
        here[torch.arange(len(chosen)), self._lookup[chosen]] = 1

        def add(part: Tensor) -> hooks.Change:
            return lambda _x, y: y + (here * part[:, None]).to(y).reshape(y.shape)

        with hooks.patched(self._lm.model, _changes(self._sites, delta, add)):
            out = self._forward(chosen)
        return out.logits[0].float()  # type: ignore[no-any-return]

    def _forward(self, chosen: Sequence[int]) -> Any:
        at = _flat([self._wanted[i] for i in chosen])
        return self._lm.forward(self._ids[chosen], self._mask[chosen], at=at)

    @torch.no_grad()
    def _measure(self) -> None:
        with (
            hooks.capture(self._lm.model, self._mlp, inputs=True) as keys,
            hooks.capture(self._lm.model, *self._sites, stop=True) as outputs,
        ):
            self._lm.body(self._ids, self._mask)
        self.keys = self._at_lookup(keys[self._mlp])
        self.outputs = torch.cat([self._at_lookup(outputs[s]) for s in self._sites], dim=1)

    def _at_lookup(self, x: Tensor) -> Tensor:
        n, t = self._ids.shape
        return x.reshape(n, t, -1)[torch.arange(n), self._lookup].float()


class Encoded(Full):
    """The change goes in where an encoder reads the subject, and a decoder says what comes of it.

    `fast`: the encoder's blocks below the edit are run once.
    """

    def __init__(self, lm: LM, rows: Sequence[Row], place: Place, *, fast: bool = True) -> None:
        self._below = [lm.subject_site("block", i) for i in range(place.below)] if fast else []
        super().__init__(lm, rows, place)
        self._decoded = right_padded([row.decoded for row in rows])[0].to(lm.device)
        self._wanted = [list(row.wanted) for row in rows]

    def _forward(self, chosen: Sequence[int]) -> Any:
        below = dict.fromkeys(self._below, of_rows(self._reached, chosen))
        at = _flat([self._wanted[i] for i in chosen])
        with hooks.skipped(self._lm.model, below):
            return self._lm.forward(
                self._ids[chosen], self._mask[chosen], decoded=self._decoded[chosen], at=at
            )

    def _measure(self) -> None:
        with hooks.raw_outputs(self._lm.model, *self._below[-1:]) as blocks:
            super()._measure()
        self._reached = next(iter(blocks.values()), None)


class Suffix:
    """From the lookup on, from the lowest edited layer up.

    The lookup is column 0 of every row, because what comes before it is in the cache.
    """

    keys: Tensor
    outputs: Tensor

    def __init__(self, lm: LM, rows: Sequence[Row], place: Place) -> None:
        self._lm = lm
        self._mlp, self._sites = lm.site("mlp_out", place.layers[-1]), place.sites(lm)
        self._below = [lm.site("block", i) for i in range(place.below)]
        ids, mask = right_padded([row.ids[row.lookup :] for row in rows])
        self._ids, self._mask = ids.to(lm.device), mask.to(lm.device)
        self._past = Past(lm, [row.ids[: row.lookup] for row in rows], room=ids.shape[1])
        self._wanted = [[w - row.lookup for w in row.wanted] for row in rows]
        self._reached = self._measure()

    def logits(self, delta: Tensor | None, of: Sequence[int] | None = None) -> Tensor:
        """[wanted, vocab] float32 of the rows `of` (None: all), in that order, with `delta`
        [len(of), D] added at their lookups."""
        chosen = list(range(len(self._wanted)) if of is None else of)
        ids = self._ids[chosen]

        def add(part: Tensor) -> hooks.Change:
            def change(_x: Tensor, y: Tensor) -> Tensor:
                z = y.reshape(*ids.shape, -1)
                z = torch.cat([z[:, :1] + part[:, None].to(y), z[:, 1:]], dim=1)
                return z.reshape(y.shape)

            return change

        # Blocks below the edit hand on what the last of them puts out, whatever they are given.
        below = dict.fromkeys(self._below, of_rows(self._reached, chosen))
        with ExitStack() as stack:
            stack.enter_context(hooks.skipped(self._lm.model, below))
            changes = _changes(self._sites, delta, add)
            stack.enter_context(hooks.patched(self._lm.model, changes))
            out = self._lm.forward(
                ids,
                torch.cat([self._past.mask, self._mask], dim=1)[chosen],
                cache=self._past.cache(chosen),
                at=_flat([self._wanted[i] for i in chosen]),
            )
        return out.logits[0].float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _measure(self) -> Any:
        """Keys and outputs at the lookup; returns what the last block below puts out, if any."""
        model = self._lm.model
        with (
            hooks.raw_outputs(model, *self._below[-1:]) as blocks,
            hooks.capture(model, self._mlp, inputs=True) as keys,
            hooks.capture(model, *self._sites, stop=True) as outputs,
        ):
            mask = torch.cat([self._past.mask, self._mask], dim=1)
            self._lm.body(self._ids, mask, cache=self._past.cache())
        n, s = self._ids.shape
        self.keys = keys[self._mlp].reshape(n, s, -1)[:, 0].float()
        at_lookup = [outputs[site].reshape(n, s, -1)[:, 0].float() for site in self._sites]
        self.outputs = torch.cat(at_lookup, dim=1)
        return next(iter(blocks.values()), None)


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask [n, t], the rows beginning at column 0."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[row[-1]] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def of_rows(output: Any, rows: Sequence[int]) -> Any:
    """Some rows of a block's output, which is a tensor or a tuple beginning with it."""
    if isinstance(output, tuple):
        return (output[0][rows], *output[1:])
    return output if output is None else output[rows]


def _flat(columns: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    rows = [i for i, wanted in enumerate(columns) for _ in wanted]
    return torch.tensor(rows), torch.tensor([c for wanted in columns for c in wanted])


def _changes(
    sites: Sequence[str], delta: Tensor | None, add: Callable[[Tensor], hooks.Change]
) -> dict[str, hooks.Change]:
    """Per site the change that adds its part of `delta`; none where there is no delta."""
    if delta is None:
        return {}
    parts = delta.chunk(len(sites), dim=1)
    return {site: add(part) for site, part in zip(sites, parts, strict=True)}
