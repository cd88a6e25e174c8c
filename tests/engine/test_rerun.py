"""Recomputing only what a change reaches gives what recomputing everything gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import hooks
from engine.lm import LM
from engine.patches import LowRank
from engine.rerun import Full, Place, Row, Suffix, rerun
from tests.tiny import CAUSAL

from .support import shared_lm, state, traces

Answer = tuple[Tensor, Tensor, Tensor, Tensor]  # logits, gradient, keys, outputs


def rows(lm: LM, *shapes: tuple[int, int, Sequence[int]]) -> list[Row]:
    """Rows of random tokens: (length, lookup, wanted)."""
    generator = torch.Generator().manual_seed(0)
    vocab = lm.model.config.get_text_config().vocab_size
    return [
        Row(tuple(torch.randint(3, vocab, (n,), generator=generator).tolist()), at, tuple(wanted))
        for n, at, wanted in shapes
    ]


MIXED = ((9, 4, (6, 7, 8)), (12, 6, (11,)), (6, 5, (5,)), (7, 2, (2, 6)))
BEGINNING = ((5, 0, (4,)), (3, 0, (0, 2)), (1, 0, (0,)))
SOME_AT_THE_BEGINNING = ((9, 4, (7, 8)), (5, 0, (3, 4)), (1, 0, (0,)))


def deltas(lm: LM, n: int, modules: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, modules * lm.width, generator=generator, requires_grad=True)


def cotangent(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(2))


def answer(run: Full | Suffix, delta: Tensor) -> Answer:
    logits = run.logits(delta)
    (gradient,) = torch.autograd.grad((logits * cotangent(logits)).sum(), delta)
    return logits.detach(), gradient, run.keys, run.outputs


def naive(lm: LM, given: Sequence[Row], layers: Sequence[int], delta: Tensor) -> Answer:
    """One row at a time, without padding or cache, by the plain model."""
    sites, logits, keys, outputs = [lm.site("mlp_out", i) for i in layers], [], [], []
    for row, own in zip(given, delta, strict=True):
        ids = torch.tensor([row.ids])

        def adding(part: Tensor, row: Row = row) -> hooks.Change:
            place = torch.zeros(len(row.ids), 1)
            place[row.lookup] = 1
            return lambda _x, y: y + (place * part).view(y.shape)

        with hooks.capture(lm.model, sites[-1], inputs=True) as k:
            lm.model(ids)
        with hooks.capture(lm.model, *sites, stop=True) as out:  # falcon adds to it in place later
            lm.model(ids)
        keys.append(k[sites[-1]].reshape(len(row.ids), -1)[row.lookup])
        here = [out[site].reshape(len(row.ids), -1)[row.lookup] for site in sites]
        outputs.append(torch.cat(here))
        changes = {s: adding(part) for s, part in zip(sites, own.chunk(len(sites)), strict=True)}
        with hooks.patched(lm.model, changes):
            logits.append(lm.model(ids).logits[0, list(row.wanted)])
    flat = torch.cat(logits)
    (gradient,) = torch.autograd.grad((flat * cotangent(flat)).sum(), delta)
    return flat.detach(), gradient, torch.stack(keys), torch.stack(outputs)


def check(lm: LM, given: Sequence[Row], *layers: int, kind: Any = Suffix) -> None:
    hooks_before = traces(lm.model)
    delta = deltas(lm, len(given), len(layers))
    run = kind(lm, given, Place(layers))
    wanted = naive(lm, given, layers, delta)
    for name, a, b in zip(
        ("logits", "gradient", "keys", "outputs"), answer(run, delta), wanted, strict=True
    ):
        assert a.shape == b.shape, name
        scale = max(1.0, float(b.abs().max()))
        assert float((a - b).abs().max()) < 1e-4 * scale, f"{name}, {kind.__name__}"
    plain = run.logits(None)
    zero = run.logits(torch.zeros_like(delta))
    assert torch.allclose(plain, zero, atol=1e-5)
    assert (plain - wanted[0]).abs().max() > 1e-2  # the change is felt
    again = answer(run, delta)  # a run may be asked any number of times
    assert torch.equal(again[0], answer(run, delta)[0])
    assert traces(lm.model) == hooks_before


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", CAUSAL)
def test_both_agree_with_the_plain_model(family: str, layer: int) -> None:
    lm = shared_lm(family)
    for given in (MIXED, BEGINNING, SOME_AT_THE_BEGINNING):
        check(lm, rows(lm, *given), layer, kind=Suffix)
        check(lm, rows(lm, *given), layer, kind=Full)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_change_of_several_layers_has_a_part_for_each(family: str) -> None:
    lm = shared_lm(family)
    for given in (MIXED, BEGINNING):
        check(lm, rows(lm, *given), 0, 1)
        check(lm, rows(lm, *given), 0, 1, kind=Full)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text", "opt", "gpt_neox", "falcon"])
def test_with_the_other_attention(family: str, layer: int) -> None:
    """Some rows of a batch are nothing but padding before the lookup: no NaN may come of it."""
    lm = shared_lm(family, attn="sdpa")
    for given in (MIXED, BEGINNING, SOME_AT_THE_BEGINNING):
        check(lm, rows(lm, *given), layer, kind=Suffix)
        check(lm, rows(lm, *given), layer, kind=Full)
    check(lm, of_facts(lm, 5, 8, 6), layer, kind=Suffix)


def alike(lm: LM, *lengths: int) -> list[Row]:
    """Rows that begin with the same 40 tokens; the lookup follows at once or some tokens later."""
    first = rows(lm, (60, 40, (59,)))[0]
    others = rows(lm, *((n, n - 3, (n - 3, n - 1)) for n in lengths))
    behind = [Row((*first.ids[:40], *r.ids), 40 + r.lookup, (42 + r.lookup,)) for r in others]
    return [Row(first.ids[:44], 40, (40, 43)), *behind]


def reads(lm: LM, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is run without the head, from now on."""
    read: list[tuple[int, ...]] = []
    body = lm.body

    def seen(ids: Tensor, *args: Any, **more: Any) -> Any:
        read.append(tuple(ids.shape))
        return body(ids, *args, **more)

    monkeypatch.setattr(lm, "body", seen)
    return read


@pytest.mark.parametrize("family", CAUSAL)
def test_a_beginning_that_rows_share_is_run_once(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm(family)
    given = alike(lm, 4, 9, 6)
    read = reads(lm, monkeypatch)
    check(lm, given, 1, kind=Suffix)
    assert read[:2] == [(1, 40), (4, 6)]


def of_facts(lm: LM, *behind: int) -> list[Row]:
    """Facts of so many tokens: each alone, then behind a text of 30 and behind one of 20."""
    long, short, *facts = rows(lm, (30, 0, ()), (20, 0, ()), *((n, n - 2, ()) for n in behind))
    found = []
    for fact in facts:
        for text in ((), long.ids, short.ids):
            at = len(text) + fact.lookup
            found.append(Row((*text, *fact.ids), at, (at, at + 1)))
    return found


@pytest.mark.parametrize("family", CAUSAL)
def test_texts_before_many_facts_are_run_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm(family)
    given = of_facts(lm, 5, 8, 6)
    read = reads(lm, monkeypatch)
    check(lm, given, 1, kind=Suffix)
    assert read[:2] == [(3, 30), (9, 6)]


@pytest.mark.parametrize("family", ["gpt_neo", "mistral"])
def test_a_shared_beginning_beyond_a_window_is_run_with_its_rows(family: str) -> None:
    """Padding in the middle would count as distance."""
    name = {"gpt_neo": "window_size", "mistral": "sliding_window"}[family]
    lm = shared_lm(family, attn="eager", **{name: 48})
    check(lm, alike(lm, 4, 9, 6), 1, kind=Suffix)
    lm = shared_lm(family, attn="eager", **{name: 37})
    check(lm, of_facts(lm, 5, 8, 6), 1, kind=Suffix)


def test_some_rows_of_a_run() -> None:
    lm = shared_lm("llama")
    for kind in (Suffix, Full):
        run = kind(lm, rows(lm, *MIXED), Place([1]))
        delta = deltas(lm, 4)
        whole, some = run.logits(delta), run.logits(delta[[0, 3]], [0, 3])
        assert torch.allclose(some, whole[[0, 1, 2, 5, 6]], atol=1e-5)


WINDOWS: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ("sliding_attention", "full_attention")},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "gpt_neo": {"window_size": 5},
}


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", WINDOWS)
def test_attention_windows(family: str, layer: int) -> None:
    """Sequences longer than the window, with the lookup inside it and beyond it."""
    lm = shared_lm(family, attn="eager", **WINDOWS[family])
    inside = rows(lm, (14, 7, (7, 12, 13)), (11, 3, (3, 9, 10)))
    beyond = rows(lm, (16, 12, (12, 15)), (14, 9, (9, 13)), (6, 2, (2, 5)))
    fast = rerun(lm, inside, Place([layer]), fast=True)
    assert isinstance(fast, Suffix)
    check(lm, inside, layer, kind=Suffix)
    kind = type(rerun(lm, beyond, Place([layer]), fast=True))
    assert kind is (Suffix if family == "gpt_neo" else Full)
    check(lm, beyond, layer, kind=kind)
    for at in range(6, 11):  # around the window's edge
        edge = rows(lm, (at + 3, at, (at, at + 2)), (5, 2, (2, 4)))
        check(lm, edge, layer, kind=type(rerun(lm, edge, Place([layer]), fast=True)))


def test_fast_is_a_choice() -> None:
    lm = shared_lm("gpt2")
    assert isinstance(rerun(lm, rows(lm, *MIXED), Place([0]), fast=True), Suffix)
    assert isinstance(rerun(lm, rows(lm, *MIXED), Place([0]), fast=False), Full)


@pytest.mark.parametrize("kind", [Suffix, Full])
def test_edits_that_are_active_are_part_of_the_model(kind: Any) -> None:
    lm = shared_lm("llama")
    generator = torch.Generator().manual_seed(3)
    for at in (0, 1):  # below the edited layer, and on its own site
        site = lm.site("mlp_out", at)
        A = torch.randn(lm.width, 1, generator=generator)
        B = torch.randn(1, lm.arch.mlp_width, generator=generator)
        with lm.active([LowRank(site, A, B)]):
            check(lm, rows(lm, *MIXED), 1, kind=kind)


@pytest.mark.parametrize("kind", [Suffix, Full])
def test_nothing_stays_when_a_pass_fails(kind: Any) -> None:
    lm = shared_lm("opt")
    before = state(lm.model)
    run = kind(lm, rows(lm, *MIXED), Place([1]))
    with pytest.raises(RuntimeError):
        run.logits(torch.zeros(4, lm.width + 1))
    assert traces(lm.model) == {}
    answer(run, deltas(lm, 4))
    assert state(lm.model) == before


def test_blocks_below_the_edit_do_not_run_again() -> None:
    lm = shared_lm("gpt2", layers=3)
    run = Suffix(lm, rows(lm, *MIXED), Place([2]))
    ran = []
    handles = [
        lm.model.get_submodule(lm.site("mlp_out", i)).register_forward_hook(
            lambda _m, args, _y, i=i: ran.append((i, tuple(args[0].shape)))
        )
        for i in range(3)
    ]
    run.logits(deltas(lm, 4))
    for handle in handles:
        handle.remove()
    assert ran == [(2, (4, 6, lm.arch.mlp_width))]  # the longest suffix: 12 tokens less 6
