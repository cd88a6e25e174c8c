"""Running again what an edit of the encoder reaches gives what the whole model gives."""

from __future__ import annotations

import pytest
import torch

from engine import hooks
from engine.lm import LM
from engine.rerun import Encoded, Place, Row, rerun

from .encoders import FAMILIES, naive, seen, site_of, start
from .rome_parts import close
from .support import shared_lm, traces


def rows(lm: LM) -> list[Row]:
    """Of different lengths, with the lookup at both ends and between."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        vocab = lm.model.config.vocab_size
        return tuple(torch.randint(3, vocab, (count,), generator=generator).tolist())

    shapes = ((9, 4, 3, (0, 1, 2)), (5, 0, 1, (0,)), (12, 11, 4, (3,)), (1, 0, 2, (0, 1)))
    return [Row(draw(n), at, wanted, (start(lm), *draw(s - 1))) for n, at, s, wanted in shapes]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("at", ["mlp_out", "block"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_agrees_with_the_plain_model(
    family: str, attn: str, layer: int, at: str, fast: bool
) -> None:
    lm = shared_lm(family, layers=3, attn=attn)
    given, site = rows(lm), lm.subject_site(at, layer)
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(len(given), lm.width, generator=generator, requires_grad=True)
    got = rerun(lm, given, Place([layer], at), fast=fast)
    assert isinstance(got, Encoded)
    logits, wanted = got.logits(delta), naive(lm, given, site, delta)
    assert close(logits, wanted)
    assert (wanted - naive(lm, given, site, torch.zeros_like(delta))).abs().max() > 1e-2
    cotangent = torch.randn(logits.shape, generator=generator)
    one, other = (torch.autograd.grad((x * cotangent).sum(), delta)[0] for x in (logits, wanted))
    assert close(one, other)
    some = got.logits(delta[[3, 0]], [3, 0])
    assert torch.allclose(some, logits[[5, 6, 0, 1, 2]], atol=1e-5)
    assert torch.allclose(got.logits(None), got.logits(torch.zeros_like(delta)), atol=1e-5)
    for row, key, output in zip(given, got.keys, got.outputs, strict=True):
        assert close(key, seen(lm, site_of(lm, layer), row.ids, inputs=True)[row.lookup])
        assert close(output, seen(lm, site, row.ids, inputs=False)[row.lookup])
    assert traces(lm.model) == {}


def test_the_encoders_blocks_below_the_edit_do_not_run_again() -> None:
    lm = shared_lm("t5", layers=3)
    ran: list[str] = []
    sites = [site_of(lm, layer) for layer in range(3)]

    def noting(site: str) -> hooks.Change:
        return lambda _x, y: (ran.append(site), y)[1]

    for fast, again in ((True, sites[2:]), (False, sites)):
        got = rerun(lm, rows(lm), Place([2]), fast=fast)
        ran.clear()
        with hooks.patched(lm.model, {site: noting(site) for site in sites}):
            got.logits(None)
        assert ran == again
