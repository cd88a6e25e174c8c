"""F = E[g gᵀ]: what ordinary text feels of a change to a module's output.

g is the gradient of −log p(text) at one position of the output, the next tokens drawn from the
model itself (the Fisher information; Martens 2020, arXiv:1412.1193, section 5). To second order a
change δ raises the loss of the text behind it by ½ δᵀFδ: along some directions far more than along
others. A value that is sought with

    δ = u P,    P ∝ (F̃ + ρI)^(−1/2),    F̃ = F d / tr F,    tr P² = d

and ‖u‖ in place of ‖δ‖ bounded says the new fact where text feels it least. Ours.

Computed once per model and module, on the model without patches, and kept on disk.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks, measured
from .errors import BadSetting
from .events import Event, Loading
from .statistics import digest, kept_at, text_of

if TYPE_CHECKING:
    from .lm import LM
    from .rerun import Place

RIDGE = 0.1  # ρ
LENGTH = 64  # tokens of a passage
PER_DIMENSION = 12  # gradients for each of the output's dimensions
BATCH = 4  # passages at a time: their logits are held


def preconditioner(lm: LM, place: Place, *, text: str) -> Generator[Event, None, Tensor]:
    """P [d, d], symmetric, on the model's device; [p d, p d] for a place of p modules.

    text  a text asset, or the path of a text file
    Yields Loading(stage="statistics"). Raises AssetUnavailable; BadSetting for an encoder-decoder,
    and for a text of single tokens.
    """
    if lm.encoder_decoder:
        raise BadSetting("fisher: an encoder-decoder's text is not its own to draw.")
    drawn = yield from text_of(text)
    sites = place.sites(lm)
    name = f"fisher-{digest(sites)}-{drawn.digest}-{LENGTH}-{PER_DIMENSION}"
    found = lm.kept.get(name)
    if not isinstance(found, Tensor):
        F = yield from measured.once(kept_at(lm, name), "F", _measured(lm, sites, drawn.passages))
        found = lm.kept[name] = inverse_root(F).to(lm.device)
    return found


def inverse_root(F: Tensor, ridge: float = RIDGE) -> Tensor:
    """P ∝ (F̃ + ρI)^(−1/2) with tr P² = d: unit u, on the average over directions, unit δ."""
    values, vectors = torch.linalg.eigh(F.double())
    lengths = (values.clamp_min(0) / values.mean() + ridge).rsqrt()
    lengths /= lengths.square().mean().sqrt()
    P: Tensor = (vectors * lengths) @ vectors.T
    return P.float()


def _measured(
    lm: LM, sites: Sequence[str], passages: Sequence[str]
) -> Generator[Event, None, Tensor]:
    """F on the passages in a fixed random order."""
    order = list(passages)
    random.Random(0).shuffle(order)
    draw = torch.Generator(device=lm.device).manual_seed(0)
    d = lm.width * len(sites)
    total, seen, wanted = torch.zeros(d, d, dtype=torch.float64), 0, PER_DIMENSION * d
    while order and seen < wanted:
        batch, order = order[:BATCH], order[BATCH:]
        g = _gradients(lm, sites, batch, draw)
        total += (g.T @ g).cpu().double()
        seen += len(g)
        yield Loading(stage="statistics", done=min(seen, wanted), total=wanted, unit="tokens")
    if not seen:
        raise BadSetting("text: no passage has two tokens.")
    return (total / seen).float()


def _gradients(
    lm: LM, sites: Sequence[str], passages: Sequence[str], draw: torch.Generator
) -> Tensor:
    """[tokens, d] at every position but the first of each passage, which all others look to."""
    ids, mask = lm.pack([lm.statement(passage).ids[:LENGTH] for passage in passages])
    added: dict[str, Tensor] = {}

    def reached(site: str) -> hooks.Change:
        def change(_: Tensor, output: Tensor) -> Tensor:
            added[site] = torch.zeros_like(output, requires_grad=True)
            return output + added[site]

        return change

    with ExitStack() as stack:
        stack.enter_context(lm.bare())
        stack.enter_context(hooks.patched(lm.model, {site: reached(site) for site in sites}))
        stack.enter_context(torch.enable_grad())
        log_p = lm.forward(ids, mask).logits.float().log_softmax(-1)
        drawn = torch.multinomial(log_p.detach().exp().flatten(0, 1), 1, generator=draw)
        likelihood = log_p.flatten(0, 1).gather(1, drawn)[:, 0]
        real = mask.bool().flatten()
        found = torch.autograd.grad(likelihood[real].sum(), list(added.values()))
    later = real & (mask.cumsum(1) > 1).flatten()
    return torch.cat([g.reshape(len(real), -1)[later].float() for g in found], dim=1)
