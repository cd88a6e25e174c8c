"""Contexts that take turns, and when the optimisation stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import pytest
import torch

from engine import contexts, hooks, values
from engine.errors import DivergedLoss
from engine.events import EditStep, Event
from engine.lm import LM
from engine.methods.memit import MemitParams
from engine.methods.rome import RomeParams
from engine.requests import Request
from engine.rerun import Place, Row, rerun
from engine.tokens import Rendered, continuation, parting, target_ids
from engine.value_rows import row_of
from engine.values import Value, optimise_values

from .support import optimise_value, shared_lm, state, traces

REQUEST = Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="Paris")
TEXTS = ("The old tower", "Because the people", "Emma wrote", "In the north")


def optimise(**changes: Any) -> tuple[list[Event], Value]:
    lm = shared_lm("llama")
    hp = RomeParams(**{"layer": 0, "steps": 4, "relative_lr": 1.0, **changes})
    run = optimise_value(lm, REQUEST, contexts.prompts(lm, REQUEST, TEXTS), hp)
    events: list[Event] = []
    while True:
        try:
            events.append(next(run))
        except StopIteration as stop:
            return events, stop.value


@pytest.mark.parametrize("turns", [2, 3, 4, 9])
def test_taking_turns_leaves_no_context_out(turns: int) -> None:
    _, together = optimise()
    _, apart = optimise(turns=turns)
    assert apart.keys.shape == together.keys.shape == (5, shared_lm("llama").arch.mlp_width)
    assert torch.allclose(apart.keys[0], together.keys[0], atol=1e-5)  # the bare prompt's first
    assert torch.allclose(apart.keys.mean(0), together.keys.mean(0), atol=1e-5)
    assert torch.allclose(apart.output, together.output, atol=1e-5)
    assert apart.norm0 == pytest.approx(together.norm0, rel=1e-5)


def test_every_turn_sees_the_bare_prompt_and_its_own_contexts() -> None:
    events, _ = optimise(turns=2, lr=0.0)
    seen = [e.parts["nll"] for e in events if isinstance(e, EditStep)]
    assert seen[0] == pytest.approx(seen[2], abs=1e-6)  # δ stays 0: the same turn, the same loss
    assert seen[1] == pytest.approx(seen[3], abs=1e-6)
    whole = next(e.parts["nll"] for e in optimise(lr=0.0)[0] if isinstance(e, EditStep))
    assert seen[0] != pytest.approx(whole, abs=1e-6)


def test_it_goes_on_until_every_turn_is_sure() -> None:
    sure, _ = optimise(stop_probability=0.0)
    assert len(sure) == 1
    both, _ = optimise(turns=2, stop_probability=0.0)
    assert len(both) == 2  # the second turn had not been asked after the first step


@pytest.mark.parametrize(("changes", "rate"), [({}, "relative_lr"), ({"lr": 0.1}, "lr")])
def test_a_loss_may_rise_on_the_way_but_not_end_there(changes: dict[str, Any], rate: str) -> None:
    lm = shared_lm("llama")
    weights, left = state(lm.model), traces(lm.model)
    hp = RomeParams(layer=0, steps=4, relative_lr=1.0, **changes)
    sharpness = 1

    def search(*each: int) -> list[float]:
        nonlocal sharpness
        run, seen = optimise_value(lm, REQUEST, _given(lm), hp), list[float]()
        sharpness = each[0]
        with hooks.patched(lm.model, {lm.arch.lm_head: lambda _x, y: sharpness * y}):
            for event in run:
                assert isinstance(event, EditStep)
                seen.append(event.parts["nll"])
                sharpness = each[event.step] if event.step < len(each) else 1
        return seen

    risen = search(1, 40, 40, 1)
    assert min(risen[1:3]) > risen[0] + 40
    with pytest.raises(DivergedLoss, match=rf"the target's loss rose from .*--hp {rate}=") as told:
        search(1, 1, 1, 40)
    assert f"from {risen[0]:.3g} to" in told.value.message
    assert (state(lm.model), traces(lm.model)) == (weights, left)


OTHERS = (
    REQUEST,
    Request(prompt="Emma lives in", subject="Emma", target_new="a very old tower"),
    Request(prompt="What is the river of Bern?", subject="Bern", target_new="Po", target_old="Aar"),
)


def together(requests: Sequence[Request], at: str = "mlp_out", **changes: Any) -> list[Value]:
    lm = shared_lm("llama")
    own = {"layer": 0} if at == "mlp_out" else {"first": 0, "last": 0}
    params = RomeParams if at == "mlp_out" else MemitParams
    hp = params(**{**own, "steps": 6, "relative_lr": 1.0, "lr": None, **changes})
    given = [contexts.prompts(lm, request, TEXTS) for request in requests]
    run = optimise_values(lm, requests, given, hp)
    while True:
        try:
            next(run)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("at", ["mlp_out", "block"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"turns": 2}, {"together": 2}, {"fast": False}, {"whole": 1.0, "stop_loss": 8.0}],
)
def test_facts_together_equal_facts_one_by_one(at: str, changes: dict[str, Any]) -> None:
    """Each with its own clamp and its own end."""
    settings = {"stop_loss": 6.6, "steps": 5, "relative_lr": 2.0, **changes}
    batch = together(OTHERS, at, **settings)
    alone = [together([request], at, **settings)[0] for request in OTHERS]
    assert len({len(v.losses) for v in alone}) > 1  # they end at different steps
    for one, other in zip(batch, alone, strict=True):
        assert len(one.losses) == len(other.losses)
        assert one.losses == pytest.approx(other.losses, rel=1e-3)
        for name in ("keys", "outputs", "delta"):
            assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-3), name


def test_facts_of_alike_lengths_are_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are padded to the longest of them."""
    groups: list[list[int]] = []
    plain = values.rerun

    def watched(lm: LM, rows: Sequence[Row], *args: Any, **more: Any) -> Any:
        groups.append([len(row.ids) - row.lookup for row in rows])
        return plain(lm, rows, *args, **more)

    monkeypatch.setattr(values, "rerun", watched)
    targets = ("Paris", "the tower in the north of the city", "Sydney", "the old tower in the city")
    together([replace(REQUEST, target_new=target) for target in targets], together=2, steps=1)
    longest = [max(group) for group in groups]
    assert len(groups) == 2
    assert longest[0] < min(size for size in groups[1] if size > 1)


def test_a_target_can_be_made_to_end_the_text() -> None:
    lm = shared_lm("llama")
    (plain,), (ended,) = together([REQUEST]), together([REQUEST], end=True)
    assert plain.losses[0] != pytest.approx(ended.losses[0], abs=1e-4)
    prompt = lm.prompt(REQUEST.prompt, chat=False)
    ids = (*prompt.ids, *target_ids(lm.tokenizer, prompt, "Paris"), lm.tokenizer.eos_token_id)
    with torch.no_grad():
        log_p = lm.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    start = len(prompt.ids)
    said = [-float(log_p[i - 1, ids[i]]) for i in range(start, len(ids))]
    (bare,) = together([REQUEST], end=True, contexts=0, turns=1)
    assert len(said) == len(ids) - start
    assert bare.losses[0] > 0


@pytest.mark.parametrize("turns", [1, 2])
def test_it_may_end_where_every_context_goes_on_with_the_target(turns: int) -> None:
    lm, fact = shared_lm("llama"), replace(REQUEST, target_new="the")
    far = {"steps": 30, "clamp": 400.0, "decay": 0.0, "kl": 0.0, "lr": 0.3, "turns": turns}
    found = {n: together([fact], stop_argmax=n, **far)[0] for n in (0, 1, 3)}
    steps = {n: len(value.losses) for n, value in found.items()}
    assert steps[1] + 2 == steps[3] < steps[0]
    before = together([fact], **{**far, "steps": steps[1] - turns})[0]
    target = target_ids(lm.tokenizer, _given(lm)[0], "the")
    run = rerun(
        lm, [row_of(lm, p, "Space Needle", target) for p in _given(lm)], Place([0]), fast=True
    )
    said = []
    for value in (before, found[1]):
        with torch.no_grad():
            best = run.logits(value.delta.expand(len(_given(lm)), -1)).argmax(-1)
        said.append(best.tolist() == list(target) * len(best))
    assert said == [False, True]


def _given(lm: LM) -> list[Rendered]:
    return contexts.prompts(lm, REQUEST, TEXTS)


def test_the_word_that_a_target_ends_in_is_to_end() -> None:
    """−log of what may stand behind it, beside the loss on the target itself."""
    lm = shared_lm("llama")
    (plain,), (whole,) = together([REQUEST], turns=1), together([REQUEST], turns=1, whole=2.0)
    size = lm.model.get_output_embeddings().weight.shape[0]
    ends = torch.tensor(parting(lm.tokenizer, size))
    found = []
    for prompt in contexts.prompts(lm, REQUEST, TEXTS):
        ids = (*prompt.ids, *target_ids(lm.tokenizer, prompt, REQUEST.target_new))
        with torch.no_grad():
            p = lm.model(torch.tensor([ids])).logits[0, -1].float().softmax(-1)
        found.append(-float(p[ends].sum().log()))
    assert min(found) > 0
    assert whole.losses[0] - plain.losses[0] == pytest.approx(2.0 * mean(found), rel=1e-3)
    for step in optimise(whole=2.0)[0]:
        if isinstance(step, EditStep):
            assert "word" in step.parts
            assert step.loss == pytest.approx(sum(step.parts.values()), rel=1e-5)


@pytest.mark.parametrize(
    ("request_", "changes"),
    [
        (replace(REQUEST, target_new="Paris!"), {}),
        (replace(REQUEST, target_new="東京"), {}),
        (replace(REQUEST, prompt="Where is the Space Needle?", chat=True), {}),
        (REQUEST, {"end": True}),
    ],
)
def test_no_word_has_to_end(request_: Request, changes: dict[str, Any]) -> None:
    """Where a mark ends the target, where words have no spaces, and where the text ends."""
    (plain,), (whole,) = together([request_], **changes), together([request_], whole=1.0, **changes)
    assert whole.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
def test_what_parts_words(family: str) -> None:
    tokenizer = shared_lm(family).tokenizer
    found = parting(tokenizer, len(tokenizer) + 3)
    assert found[-3:] == [False] * 3  # no tokens
    assert found[tokenizer.eos_token_id]
    for text, parts in (("s", False), ("7", False), (".", True), (" the", True), (" ", True)):
        (*_, token) = continuation(tokenizer, "x" + text)[:2]
        assert found[token] is parts, (text, tokenizer.convert_ids_to_tokens(token))


def test_over_several_layers_each_part_is_measured_by_its_own_layers_output() -> None:
    lm = shared_lm("gemma3_text")
    hp = MemitParams(first=0, last=1, steps=3, lr=10.0, clamp=0.5, contexts=0)
    run = optimise_values(lm, [REQUEST], [contexts.prompts(lm, REQUEST, ())], hp)
    while True:
        try:
            next(run)
        except StopIteration as stop:
            (value,) = stop.value
            break
    lengths = value.outputs[0].view(2, -1).norm(dim=1)
    relative = lengths / lengths.square().mean().sqrt()
    assert float(relative[0]) != pytest.approx(float(relative[1]), rel=0.01)
    u = value.delta.view(2, -1) / relative[:, None]
    assert float(u.norm()) == pytest.approx(0.5 * value.norm0, rel=1e-4)  # at the clamp
