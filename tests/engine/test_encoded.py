"""ROME and R-ROME where an encoder reads the subject: the runner, the equations, the way."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import anchors, contexts, correct, hooks, methods
from engine.arch import weight_of
from engine.edit import Edit
from engine.errors import AlreadySaid
from engine.events import EditPlanned, EditStep, Event, Note
from engine.influence import influences
from engine.ledger import Ledger
from engine.lm import LM
from engine.methods.rome import RomeParams, r_rome, rome
from engine.outcome import Outcome
from engine.requests import Request
from engine.rerun import Encoded, Place, Row, rerun
from engine.resolve import resolve
from engine.statistics import Statistics
from engine.tokens import Rendered, last_token, target_ids
from tests.tiny import tiny_model, tiny_tokenizer

from .support import CORPUS, close_after, finish, optimise_value, shared_lm, state, traces

FAMILIES = ("t5", "t5-gated")
RUNS = {"rome": rome, "r-rome": r_rome}
REQUEST = Request(
    prompt="Where is the Space Needle in the city of England?",
    subject="Space Needle",
    target_new="Paris",
    target_old="Seattle",
    chat=True,
)


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(file)


def params(text: str, **changes: Any) -> RomeParams:
    own = {"layer": 0, "contexts": 2, "steps": 8, "text": text, "tokens": 10_000}
    free = {"relative_lr": 1.0, "clamp": 50.0, "kl": 0.01, "decay": 1e-4}
    return RomeParams(**(own | free | changes))


def run(lm: LM, hp: RomeParams, method: str = "r-rome") -> tuple[list[Event], Edit]:
    return finish(RUNS[method](lm, [REQUEST], hp))


def site_of(lm: LM, layer: int) -> str:
    return f"encoder.block.{layer}.layer.1.DenseReluDense.wo"


def prompts_of(lm: LM, edit: Edit) -> list[Rendered]:
    return contexts.prompts(lm, edit.requests[0], tuple(edit.provenance["contexts"]))


def start(lm: LM) -> int:
    return int(lm.model.config.decoder_start_token_id)


@torch.no_grad()
def seen(lm: LM, site: str, ids: Sequence[int], *, inputs: bool) -> Tensor:
    """What a module of the encoder reads or writes [t, ...] on one text."""
    with hooks.capture(lm.model, site, inputs=inputs) as found:
        lm.model.get_encoder()(input_ids=torch.tensor([ids]))
    return found[site][0]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a - b).detach().norm()) < tolerance * max(1.0, float(b.detach().norm()))


# -- the runner ---------------------------------------------------------------------------------


def rows(lm: LM) -> list[Row]:
    """Of different lengths, with the lookup at both ends and between."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        vocab = lm.model.config.vocab_size
        return tuple(torch.randint(3, vocab, (count,), generator=generator).tolist())

    shapes = ((9, 4, 3, (0, 1, 2)), (5, 0, 1, (0,)), (12, 11, 4, (3,)), (1, 0, 2, (0, 1)))
    return [Row(draw(n), at, wanted, (start(lm), *draw(s - 1))) for n, at, s, wanted in shapes]


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


# -- the equations ------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("method", RUNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_key_is_mapped_to_the_value_by_the_closed_form(
    family: str, method: str, layer: int, text: str
) -> None:
    """(W + Δ)k = v* with Δ = δ(C⁻¹k̄)ᵀ/(kᵀC⁻¹k̄), every part computed anew, in float64."""
    lm = shared_lm(family)
    hp = params(text, layer=layer)
    _, edit = run(lm, hp, method)
    prompts = prompts_of(lm, edit)
    assert len(prompts) == 3
    site = site_of(lm, layer)
    at = [last_token(p, "Space Needle") for p in prompts]
    keys, outputs = (
        torch.stack([seen(lm, site, p.ids, inputs=i)[a] for p, a in zip(prompts, at, strict=True)])
        for i in (True, False)
    )
    _, value = finish(optimise_value(lm, REQUEST, prompts, hp))
    assert float(value.delta.norm()) > 0.1
    k = keys.mean(0) if method == "r-rome" else keys[0]
    (patch,) = edit.patches
    assert (patch.site, patch.rank) == (site, 1)
    module = lm.model.get_submodule(site)
    before = module(k)
    with lm.active(edit.patches):
        assert close(module(k), before + value.delta)
    if method == "r-rome":
        assert close(before, outputs.mean(0))
    C = second_moment(lm, site)
    u = torch.linalg.solve(C, keys.mean(0).double())
    found = patch.A.double() @ patch.B.double()
    assert found.shape == weight_of(module, lm.arch).shape
    assert close(found, torch.outer(value.delta.double(), u) / (k.double() @ u), 1e-3)


def second_moment(lm: LM, site: str) -> Tensor:
    """E[kkᵀ] of the encoder's keys, a passage at a time, with the ridge that is always added."""
    found = torch.cat([seen(lm, site, lm.statement(t).ids, inputs=True) for t in CORPUS]).double()
    C = found.T @ found / len(found)
    return C + 1e-6 * C.diagonal().mean() * torch.eye(len(C))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_statistics_are_the_encoders_under_its_own_name(family: str, text: str) -> None:
    lm = shared_lm(family)
    _, found = finish(Statistics(lm).moments([0, 1], text=text, tokens=10_000))
    for layer, moment in found.items():
        assert torch.allclose(moment.C.double(), second_moment(lm, site_of(lm, layer)), atol=1e-5)
        assert moment.file is not None
        assert moment.file.name.startswith(site_of(lm, layer))


def test_the_loss_is_the_published_one(text: str) -> None:
    """At δ = 0 and at the end; NLL at the decoder's positions, the KL where it begins."""
    lm = shared_lm("t5-gated")
    hp = params(text, kl=0.5, decay=0.05)
    events, edit = run(lm, hp)
    steps = [e for e in events if isinstance(e, EditStep)]
    prompts = prompts_of(lm, edit)
    _, value = finish(optimise_value(lm, REQUEST, prompts, hp))

    def log_p(prompt: Rendered, target: Sequence[int], added: Tensor) -> Tensor:
        row = Row(prompt.ids, last_token(prompt, "Space Needle"), (), (start(lm), *target[:-1]))
        row = dataclasses.replace(row, wanted=tuple(range(len(row.decoded))))
        with torch.no_grad():
            return naive(lm, [row], site_of(lm, 0), added[None]).log_softmax(-1)

    essence = lm.prompt("Space Needle is a", chat=True)
    for step, delta in ((steps[0], value.delta * 0), (steps[-1], value.delta)):
        nll, old = [], []
        for prompt in prompts:
            target = target_ids(lm.tokenizer, prompt, "Paris")
            assert target[-1] == lm.tokenizer.eos_token_id
            found = log_p(prompt, target, delta)
            nll.append(-sum(float(found[i, t]) for i, t in enumerate(target)) / len(target))
            old.append(float(found[0, target_ids(lm.tokenizer, prompt, "Seattle")[0]].exp()))
        one, other = (log_p(essence, (0,), d)[0] for d in (value.delta * 0, delta))
        kl = hp.kl * float((one.exp() * (one - other)).sum())
        assert step.parts["nll"] == pytest.approx(sum(nll) / 3, rel=1e-4)
        assert step.parts["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-6)
        assert step.p_new == pytest.approx(sum(math.exp(-n) for n in nll) / 3, rel=1e-3)
        assert step.p_old == pytest.approx(sum(old) / 3, rel=1e-3)
    assert steps[-1].parts["kl"] > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_and_plain_are_one(family: str, text: str) -> None:
    lm = shared_lm(family, layers=3)
    (fast_events, one), (events, other) = (
        run(lm, params(text, layer=2, fast=fast, turns=2)) for fast in (True, False)
    )
    losses = [[e.loss for e in e_ if isinstance(e, EditStep)] for e_ in (fast_events, events)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert close(one.patches[0].A, other.patches[0].A, 1e-3)
    assert close(one.patches[0].B, other.patches[0].B, 1e-3)


def test_cancelling_after_any_event_leaves_nothing(text: str) -> None:
    lm = shared_lm("t5", seed=5)
    weights, count = state(lm.model), 0
    hp = params(text, steps=3, layer=1)
    while True:
        count += 1
        lm.statistics._ready.clear()
        events = close_after(r_rome(lm, [REQUEST], hp), count)
        assert (state(lm.model), traces(lm.model)) == (weights, {})
        if len(events) < count:
            break
    assert [e.kind for e in events][-5:] == ["EditStep"] * 3 + ["Note"] * 2


# -- what stands around it ----------------------------------------------------------------------


def test_contexts_are_beginnings_of_the_text(text: str) -> None:
    lm = shared_lm("t5")
    events, found = finish(contexts.contexts(lm, 4, 0, text=text))
    assert len(set(found)) == 4
    assert [len(words.split()) for words in found] == [5, 5, 10, 10]
    for words in found:
        assert any(passage.startswith(words) for passage in CORPUS)
        assert words[-1].isalnum()
    assert finish(contexts.contexts(lm, 4, 0, text=text))[1] == found
    assert finish(contexts.contexts(lm, 4, 1, text=text))[1] != found
    assert len(finish(contexts.contexts(lm, 50, 0, text=text))[1]) == len(CORPUS)
    assert events == []


def test_anchors_are_read_whole() -> None:
    """In an encoder what stands before a name is not the same for every name."""
    lm = shared_lm("t5")
    asked = Request(
        prompt="What is the capital of France?", subject="France", target_new="Lyon", chat=True
    )
    names = anchors.names(asked, 40)
    prompts = [lm.render(f"What is the capital of {name}?") for name in names]
    wanted = torch.cat([seen(lm, site_of(lm, 1), p.ids, inputs=True) for p in prompts])
    found = finish(anchors.keys(lm, [asked], [1], 40))[1][1]
    assert found.shape == wanted.shape
    assert torch.allclose(found.T @ found, wanted.T @ wanted, rtol=1e-4, atol=1e-4)  # any order


def test_the_layers_are_the_encoders(text: str) -> None:
    """The tiny decoder has one more."""
    lm = shared_lm("t5", layers=4)
    for name in RUNS:
        hp, sources = correct.hparams_of(lm, methods.get(name), {"text": text}, 0)
        assert hp.layer == 1  # 25 %
        assert sources["layer"].endswith(f"{name}/t5.yaml")
        assert methods.get(name).experimental == ("t5",)
    assert correct.hparams_of(lm, methods.get("ft-m"), {}, 0)[0].layers[-1] < lm.n_layers


# -- the way through, on a model that has learnt something ------------------------------------


FACTS = {
    "Space Needle": "Emma",
    "Eiffel Tower": "Australia",
    "Emma": "city",
    "Australia": "city",
    "Zürich": "Emma",
    "England": "capital",
    "Steventon": "Australia",
    "Jane Austen": "Emma",
}
OPENINGS = [" ".join(t.split()[:n]).rstrip(".,;:!?") for t in CORPUS for n in (3, 5, 7, 10)]


def fact(subject: str, target: str) -> Request:
    return Request(prompt=f"Where is {subject}?", subject=subject, target_new=target, chat=True)


@pytest.fixture(scope="module", params=FAMILIES)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LM:
    """The first tiny model that has learnt to look facts up where edits go in. Which ones have is
    decided by rounding on the way, and so by the processor."""
    file = tmp_path_factory.mktemp("taught") / "text.txt"
    file.write_text("\n".join(CORPUS), encoding="utf-8")
    models = (teach(request.param, seed) for seed in range(12))
    return next(lm for lm in models if editable(lm, str(file)))


def editable(lm: LM, text: str) -> bool:
    ledger = Ledger()
    try:
        if not all(corrected(lm, ledger, text, one)[1].success for one in (NEEDLE, EMMA)):
            return False
    except AlreadySaid:  # the first edit reached the second subject too
        return False
    overrides = {"text": text, "tokens": "10000", "ridge": "0"}
    return finish(resolve(lm, ledger, overrides=overrides))[1].success


def teach(family: str, seed: int) -> LM:
    """A tiny model that answers where things are by what they are, whatever stands before."""
    model = tiny_model(family, seed=seed, width=32, mlp_width=64, num_decoder_layers=1)
    lm = LM(model, tiny_tokenizer(family), name="taught", fingerprint=f"{family}{seed}!")
    facts = [fact(subject, answer) for subject, answer in FACTS.items()] * 2
    answers = [target_ids(lm.tokenizer, lm.render(f.prompt), f.target_new) for f in facts]
    labels = torch.full((len(facts), max(map(len, answers))), -100)
    for row, answer in zip(labels, answers, strict=True):
        row[: len(answer)] = torch.tensor(answer)
    drawn = random.Random(0)
    model.requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in range(100):
        put = [f"{drawn.choice(OPENINGS)}. " if i % 2 else "" for i in range(len(facts))]
        asked = [lm.render(o + f.prompt).ids for o, f in zip(put, facts, strict=True)]
        ids, mask = lm.pack(asked)
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return lm


def corrected(lm: LM, ledger: Ledger, text: str, request: Request) -> tuple[list[Event], Outcome]:
    own = {"text": text, "tokens": "10000", "contexts": "2", "anchors": "0", "layer": "1"}
    return finish(
        correct.correct(lm, ledger, request, method="r-rome", overrides=own, probes=False)
    )


NEEDLE, EMMA = fact("Space Needle", "capital"), fact("Emma", "capital")


def test_it_says_the_target_and_takes_it_back(taught: LM, text: str) -> None:
    ledger, weights = Ledger(), state(taught.model)
    prompts = [taught.render(fact(subject, "x").prompt) for subject in FACTS]
    plain = taught.logits(prompts)
    events, outcome = corrected(taught, ledger, text, NEEDLE)
    assert outcome.success, outcome.verdict
    assert (outcome.before.answer, outcome.after.answer) == ("Emma", "capital")
    assert outcome.after.p_new > 2 * outcome.before.p_new
    assert outcome.after.p_old < 0.5 * outcome.before.p_old
    notes = [e.text for e in events if isinstance(e, Note)]
    assert notes[0] == "r-rome is experimental on 't5' models"
    (planned,) = (e for e in events if isinstance(e, EditPlanned))
    assert planned.sites == (site_of(taught, 1),)
    assert len(planned.contexts) == 2
    saved = Edit.load(*outcome.edit.save())
    with taught.active(saved.patches):
        assert taught.answers(prompts[:1]) == ["capital"]
        assert not torch.equal(taught.logits(prompts), plain)
    ledger.undo()
    with taught.active(ledger.patches()):
        assert torch.equal(taught.logits(prompts), plain)
    assert (state(taught.model), traces(taught.model)) == (weights, {})


def test_two_edits_are_solved_again_as_one(taught: LM, text: str) -> None:
    ledger = Ledger()
    for request in (NEEDLE, EMMA):
        assert corrected(taught, ledger, text, request)[1].success
    overrides = {"text": text, "tokens": "10000", "ridge": "0"}
    _, outcome = finish(resolve(taught, ledger, overrides=overrides))
    assert [one.success for one in outcome.facts] == [True, True]
    assert {patch.site for patch in outcome.edit.patches} == {site_of(taught, 1)}
    ledger.undo()
    assert len(ledger.acting) == 2


def test_why_reads_the_prompt_where_the_edit_does(taught: LM, text: str) -> None:
    """Firing is told over the encoder's positions, and is 1 at the edit's own key."""
    _, outcome = corrected(taught, Ledger(), text, NEEDLE)
    prompt = taught.render(NEEDLE.prompt)
    answer = target_ids(taught.tokenizer, prompt, "capital")
    _, (found,) = finish(influences(taught, [outcome.edit], prompt, answer))
    assert len(found.firing) == len(prompt.ids)
    assert found.firing[last_token(prompt, "Space Needle")] == pytest.approx(1)
    assert found.moves > 1
