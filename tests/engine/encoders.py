"""Tiny encoder-decoders, looked at where their encoder is edited."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine import hooks
from engine.lm import LM
from engine.rerun import Row

FAMILIES = ("t5", "t5-gated")


def site_of(lm: LM, layer: int) -> str:
    return f"encoder.block.{layer}.layer.1.DenseReluDense.wo"


def start(lm: LM) -> int:
    return int(lm.model.config.decoder_start_token_id)


@torch.no_grad()
def seen(lm: LM, site: str, ids: Sequence[int], *, inputs: bool) -> Tensor:
    """What a module of the encoder reads or writes [t, ...] on one text."""
    with hooks.capture(lm.model, site, inputs=inputs) as found:
        lm.model.get_encoder()(input_ids=torch.tensor([ids]))
    return found[site][0]


def naive(lm: LM, given: Sequence[Row], site: str, delta: Tensor) -> Tensor:
    """One row at a time, without padding, by the plain model."""
    found = []
    for row, own in zip(given, delta, strict=True):

        def add(_x: Tensor, y: Tensor, row: Row = row, own: Tensor = own) -> Tensor:
            place = torch.zeros(len(row.ids), 1)
            place[row.lookup] = 1
            return y + place * own

        with hooks.patched(lm.model, {site: add}):
            out = lm.model(
                input_ids=torch.tensor([row.ids]), decoder_input_ids=torch.tensor([row.decoded])
            )
        found.append(out.logits[0, list(row.wanted)])
    return torch.cat(found)
