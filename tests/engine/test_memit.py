"""MEMIT, AlphaEdit and EMMET against their papers, on every family of decoders."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import anchors, contexts, hooks
from engine.closed_form import rows, weighted
from engine.edit import Edit
from engine.errors import BadRequest, DivergedLoss
from engine.events import EditPlanned, EditStep, Event
from engine.lm import LM
from engine.methods.alphaedit import AlphaEditParams, alphaedit
from engine.methods.emmet import EmmetParams, emmet
from engine.methods.memit import MemitParams, memit
from engine.methods.pmet import PmetParams, pmet
from engine.methods.rome import RomeParams, r_rome
from engine.requests import Request
from engine.spreading import Subjects
from engine.tokens import last_token
from engine.values import optimise_values
from tests.tiny import CAUSAL

from .support import CORPUS, close_after, finish, shared_lm, state, traces
from .test_anchors import keys_of

# Targets right behind the subjects: there even the last block's output decides.
FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris"),
    Request(prompt="The writer of Emma", subject="Emma", target_new="Sydney"),
    Request(prompt="The capital of Australia", subject="Australia", target_new="the tower"),
)
FREE = {"contexts": 2, "steps": 6, "relative_lr": 1.0, "clamp": 50.0, "kl": 0.01, "decay": 1e-4}
NORMED = ["gemma2", "gemma3_text"]  # families whose MLPs are followed by a norm
RUNS: dict[str, tuple[Any, type]] = {
    "memit": (memit, MemitParams),
    "alphaedit": (alphaedit, AlphaEditParams),
    "pmet": (pmet, PmetParams),
}


@pytest.fixture(autouse=True)
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(file)


def run(lm: LM, name: str, text: str, facts: Any = FACTS, **changes: Any) -> tuple[Any, Edit, Any]:
    method, params = RUNS[name]
    own = {"first": 0, "last": 1, "text": text, "tokens": 10_000}
    hp = params(**(FREE | own | changes))
    events, edit = finish(method(lm, facts, hp))
    return events, edit, hp


def prompts_of(lm: LM, edit: Edit) -> list[Any]:
    texts = tuple(edit.provenance["contexts"])
    return [contexts.prompts(lm, request, texts) for request in edit.requests]


def near(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    return float((a - b).norm()) < tolerance * max(1e-3, float(b.norm()))


@pytest.mark.parametrize("family", [family for family in CAUSAL if family not in NORMED])
def test_memit_s_layers_each_solve_for_their_share_of_what_is_left(family: str, text: str) -> None:
    """Algorithm 1 of the paper, every part computed anew."""
    lm = shared_lm(family)
    _, edit, hp = run(lm, "memit", text)
    prompts = prompts_of(lm, edit)
    assert min(len(own) for own in prompts) > 1  # contexts too
    _, values = finish(optimise_values(lm, FACTS, prompts, hp))
    z = torch.stack([value.outputs[0] + value.delta for value in values])
    _, moments = finish(lm.statistics.moments([0, 1], text=text, tokens=10_000))
    assert [patch.site for patch in edit.patches] == [lm.site("mlp_out", i) for i in (0, 1)]
    for layer, patch in enumerate(edit.patches):
        with lm.active(edit.patches[:layer]):
            K, reached = looked(lm, prompts, layer, lm.site("block", 1))
        residual = (z - reached).T / (2 - layer)
        M = lm.arch.mlp_width * moments[layer].C + K @ K.T
        assert near(patch.A @ patch.B @ M, residual @ K.T)


@torch.no_grad()
def looked(lm: LM, prompts: list[Any], layer: int, site: str) -> tuple[Tensor, Tensor]:
    """Keys K [d_ff, n] of a layer, half the bare prompts' and half the mean over their contexts,
    and what a module puts out [n, d] at the bare prompts: a plain run of each prompt."""
    mlp, keys, reached = lm.site("mlp_out", layer), [], []
    for fact, own in zip(FACTS, prompts, strict=True):
        seen = []
        for prompt in own:
            with (
                hooks.capture(lm.model, mlp, inputs=True) as given,
                hooks.capture(lm.model, site) as put,
            ):
                lm.model(torch.tensor([prompt.ids]))
            at = last_token(prompt, str(fact.subject))
            pair = given[mlp], put[site]
            seen.append([x.reshape(len(prompt.ids), -1)[at] for x in pair])
        (key, output), *others = seen
        behind = [k for k, _ in others]
        keys.append(0.5 * key + 0.5 * sum(behind) / len(behind) if behind else key)
        reached.append(output)
    return torch.stack(keys, dim=1), torch.stack(reached)


@pytest.mark.parametrize("family", CAUSAL)
def test_blocks_below_the_last_look_are_not_run_again(family: str, text: str) -> None:
    lm = shared_lm(family)
    _, edit, _ = run(lm, "memit", text)
    prompts, last, below = prompts_of(lm, edit), lm.site("block", 1), lm.site("mlp_out", 0)
    subjects = Subjects(lm, FACTS, prompts)
    subjects.look(1, last)
    with lm.active(edit.patches[1:]):
        with hooks.capture(lm.model, below) as ran:
            again = subjects.look(1, last)
        anew = Subjects(lm, FACTS, prompts).look(1, last)
    assert not ran
    for one, other in zip(vars(again).values(), vars(anew).values(), strict=True):
        assert near(one, other, 1e-5)


@pytest.mark.parametrize("weight", [1e-6, 20.0])
@pytest.mark.parametrize("family", NORMED)
def test_behind_a_norm_every_layer_solves_for_what_was_sought_for_it(
    family: str, weight: float, text: str
) -> None:
    """The parts of δ, all in place at once, say what each MLP is to put out."""
    lm = shared_lm(family)
    _, edit, hp = run(lm, "memit", text, weight=weight, contexts=0)
    prompts, sites = prompts_of(lm, edit), [lm.site("mlp_out", layer) for layer in (0, 1)]
    _, values = finish(optimise_values(lm, FACTS, prompts, hp))
    _, moments = finish(lm.statistics.moments([0, 1], text=text, tokens=10_000))
    cut = [
        own[0].ids[: last_token(own[0], str(f.subject)) + 1]
        for f, own in zip(FACTS, prompts, strict=True)
    ]
    wanted = []
    for ids, value in zip(cut, values, strict=True):
        parts = dict(zip(sites, value.delta.chunk(2), strict=True))
        assert min(float(part.norm()) for part in parts.values()) > 0
        with hooks.patched(lm.model, {site: added(part) for site, part in parts.items()}):
            wanted.append(at_the_end(lm, ids, sites))
    for layer, patch in enumerate(edit.patches):
        with lm.active(edit.patches[:layer]):
            now = [at_the_end(lm, ids, sites)[layer] for ids in cut]
            K = torch.stack([at_the_end(lm, ids, sites, inputs=True)[layer] for ids in cut]).T
        R = torch.stack([v[layer] - x for v, x in zip(wanted, now, strict=True)]).T
        M = weight * moments[layer].C + K @ K.T
        assert near(patch.A @ patch.B @ M, R @ K.T)
    if weight < 1:  # ordinary keys weigh nothing
        with lm.active(edit.patches):
            for ids, each in zip(cut, wanted, strict=True):
                assert near(torch.cat(at_the_end(lm, ids, sites)), torch.cat(each), 0.02)


def added(part: Tensor) -> hooks.Change:
    return lambda _x, y: torch.cat([y[:, :-1], y[:, -1:] + part], dim=1)


@torch.no_grad()
def at_the_end(lm: LM, ids: Any, sites: list[str], *, inputs: bool = False) -> list[Tensor]:
    """What the modules put out, or are given, at the last token."""
    with hooks.capture(lm.model, *sites, inputs=inputs) as seen:
        lm.body(*lm.pack([ids]))
    return [seen[site].reshape(len(ids), -1)[-1] for site in sites]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_block_output_reaches_z_when_ordinary_keys_weigh_nothing(
    family: str, text: str
) -> None:
    lm = shared_lm(family)
    _, edit, hp = run(lm, "memit", text, weight=1e-6, contexts=0)
    prompts = prompts_of(lm, edit)
    _, values = finish(optimise_values(lm, FACTS, prompts, hp))
    z = torch.stack([value.outputs[0] + value.delta for value in values])
    with lm.active(edit.patches):
        _, reached = looked(lm, prompts, 1, lm.site("block", 1))
    assert near(reached, z, 1e-2)


@pytest.mark.parametrize("family", CAUSAL)
def test_pmet_asks_the_mlp_for_its_part_by_the_root_of_the_layers_left(
    family: str, text: str
) -> None:
    lm = shared_lm(family)
    _, edit, hp = run(lm, "pmet", text)
    prompts = prompts_of(lm, edit)
    _, values = finish(optimise_values(lm, FACTS, prompts, hp))
    assert values[0].delta.shape == (2 * lm.width,)
    v = torch.stack([(value.outputs[0] + value.delta)[lm.width :] for value in values])
    _, moments = finish(lm.statistics.moments([0, 1], text=text, tokens=10_000))
    for layer, patch in enumerate(edit.patches):
        with lm.active(edit.patches[:layer]):
            K, reached = looked(lm, prompts, layer, lm.site("mlp_out", 1))
        residual = ((v - reached) / (2 - layer) ** 0.5).T
        M = lm.arch.mlp_width * moments[layer].C + K @ K.T
        assert near(patch.A @ patch.B @ M, residual @ K.T)


@pytest.mark.parametrize("name", RUNS)
def test_facts_become_likelier_and_undo_is_exact(name: str, text: str) -> None:
    lm = shared_lm("llama")
    before, hooks_before = state(lm.model), traces(lm.model)
    prompts = [lm.statement(request.prompt) for request in FACTS]
    unedited = lm.logits(prompts)
    events, edit, _ = run(lm, name, text, relative_weight=0.01)
    assert isinstance(events[-1], Event)
    assert any(isinstance(e, EditPlanned) for e in events)
    steps = [e for e in events if isinstance(e, EditStep)]
    assert steps[-1].loss < steps[0].loss
    assert len(edit.requests) == 3
    with lm.active(edit.patches):
        assert not torch.equal(lm.logits(prompts), unedited)
    assert torch.equal(lm.logits(prompts), unedited)
    assert state(lm.model) == before
    assert traces(lm.model) == hooks_before


@pytest.mark.parametrize("family", CAUSAL)
def test_alphaedit_leaves_ordinary_directions_as_they_are(family: str, text: str) -> None:
    """ΔK₀ = 0 (Fang et al. 2025, section 3.1) and eq. 14, of what the method puts in place."""
    lm = shared_lm(family)
    _, edit, hp = run(lm, "alphaedit", text, steps=2, contexts=0, rank=0.5, weight=0.5)
    _, moments = finish(lm.statistics.moments([0, 1], text=text, tokens=10_000))
    for layer, patch in enumerate(edit.patches):
        assert patch.site == lm.site("mlp_out", layer)
        _, vectors = torch.linalg.eigh(moments[layer].C.double())
        Q, kept = vectors.tensor_split([round(hp.rank * lm.arch.mlp_width)], dim=1)
        assert kept.shape[1] > 0
        assert patch.keys is not None
        B, K = patch.B.double(), patch.keys[:, 0].T.double()
        assert float(patch.A.norm(dim=0).min()) > 0
        assert float((B @ kept).norm()) < 1e-4 * float(B.norm())
        N = Q @ Q.T
        assert near(B @ (N @ K @ K.T @ N + 0.5 * torch.eye(len(K))), K.T @ N, 1e-3)


@pytest.mark.parametrize(
    ("name", "family"), [*itertools.product(("memit", "pmet"), CAUSAL), ("alphaedit", "qwen2")]
)
def test_the_fast_path_equals_the_plain_loop(name: str, family: str, text: str) -> None:
    lm = shared_lm(family)
    small = {"contexts": 1, "steps": 3}
    fast, plain = (run(lm, name, text, FACTS[:2], fast=f, **small)[1] for f in (True, False))
    for a, b in zip(fast.patches, plain.patches, strict=True):
        assert float(a.norm()) > 0
        assert near(a.A @ a.B, b.A @ b.B, 1e-3)


@pytest.mark.parametrize("name", [*RUNS, "emmet"])
def test_keys_of_earlier_edits_stay_where_they_are(name: str, text: str) -> None:
    lm = shared_lm("llama")
    method, params = (RUNS | {"emmet": (emmet, EmmetParams)})[name]
    where = {"layer": 0} if name == "emmet" else {"first": 0, "last": 0}
    moved = {}
    for past in (True, False):
        given = FREE | where | {"text": text, "tokens": 10_000, "past": past, "weight": 0.01}
        hp = params(**given)
        _, first = finish(method(lm, FACTS[:1], hp))
        with lm.active(first.patches):
            _, second = finish(method(lm, FACTS[1:], hp))
        (kept,), (patch,) = first.patches, second.patches
        assert kept.keys is not None
        moved[past] = float((patch.A @ (patch.B @ kept.keys.flatten(0, 1).T)).norm())
    assert moved[True] < moved[False]


@pytest.mark.parametrize("name", [*RUNS, "emmet"])
def test_keys_of_other_names_move_less_with_anchors(name: str, text: str) -> None:
    lm = shared_lm("llama")
    method, params = (RUNS | {"emmet": (emmet, EmmetParams)})[name]
    layers = [0] if name == "emmet" else [0, 1]
    where = {"layer": 0} if name == "emmet" else {"first": 0, "last": 1}
    sites = [lm.site("mlp_out", layer) for layer in layers]
    asked = [
        lm.statement(fact.prompt.replace(str(fact.subject), other))
        for fact in FACTS
        for other in anchors.names(fact, 12)
    ]
    with torch.no_grad():
        keys = {site: torch.cat([keys_of(lm, site, p.ids) for p in asked]) for site in sites}
    moved = {}
    for count in (0, 12):
        given = FREE | where | {"text": text, "tokens": 10_000, "anchors": count}
        _, edit = finish(method(lm, FACTS, params(**given)))
        assert [patch.site for patch in edit.patches] == sites
        moved[count] = [
            float((p.A @ (p.B @ keys[p.site].T)).norm() / p.A.norm()) for p in edit.patches
        ]
    for held, free in zip(moved[12], moved[0], strict=True):
        assert held < 0.9 * free


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_one_fact_of_emmet_is_r_rome(family: str, text: str) -> None:
    lm = shared_lm(family)
    given = FREE | {"layer": 0, "text": text, "tokens": 10_000}
    _, one = finish(emmet(lm, FACTS[:1], EmmetParams(**given)))
    _, other = finish(r_rome(lm, FACTS[:1], RomeParams(**given)))
    (a,), (b,) = one.patches, other.patches
    assert near(a.A @ a.B, b.A @ b.B)


@pytest.mark.parametrize("family", CAUSAL)
def test_emmet_meets_every_value_of_a_batch_exactly(family: str, text: str) -> None:
    lm = shared_lm(family)
    hp = EmmetParams(**(FREE | {"layer": 0, "text": text, "tokens": 10_000}))
    _, edit = finish(emmet(lm, FACTS, hp))
    (patch,) = edit.patches
    assert patch.keys is not None
    assert near(patch.A @ (patch.B @ patch.keys[:, 0].T), patch.A, 1e-4)


def test_a_closed_form_needs_subjects_and_facts(text: str) -> None:
    lm = shared_lm("llama")
    nameless = Request(prompt="The tower is in", target_new="Paris")
    for name in RUNS:
        with pytest.raises(BadRequest):
            run(lm, name, text, ())
    with pytest.raises(BadRequest, match="subject"):
        finish(emmet(lm, [nameless], EmmetParams(layer=0, text=text)))


def test_a_range_of_layers_goes_upwards(text: str) -> None:
    with pytest.raises(ValueError, match="must not be above"):
        MemitParams(first=1, last=0)
    with pytest.raises(ValueError, match="share"):
        AlphaEditParams(first=0, last=1, rank=1.5)


def test_a_loss_that_diverges_and_a_cancel_leave_the_model_as_it_was(text: str) -> None:
    lm = shared_lm("llama")
    before, hooks_before = state(lm.model), traces(lm.model)
    with pytest.raises(DivergedLoss):
        run(lm, "memit", text, lr=float("inf"))
    hp = MemitParams(**(FREE | {"first": 0, "last": 1, "text": text, "tokens": 10_000}))
    for count in (1, 4, 9):
        close_after(memit(lm, FACTS, hp), count)
    assert state(lm.model) == before
    assert traces(lm.model) == hooks_before
    assert lm.patches == ()


def test_a_single_layer_of_memit_is_its_closed_form_with_ones_own_parts(text: str) -> None:
    lm = shared_lm("llama")
    _, edit, _ = run(lm, "memit", text, first=1, last=1, weight=5.0)
    (patch,) = edit.patches
    _, moments = finish(lm.statistics.moments([1], text=text, tokens=10_000))
    assert patch.keys is not None
    none = torch.empty(0, lm.arch.mlp_width)
    again = rows(patch.keys[:, 0].T, weighted(moments[1], 5.0, none))
    assert near(patch.B, again)
