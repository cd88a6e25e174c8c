"""Knowledge neurons: which are chosen, and that only what they write changes."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import contexts, methods
from engine.arch import weight_of
from engine.attribution import Attributions, attributions
from engine.correct import correct
from engine.edit import Edit
from engine.errors import BadRequest, EditFailed, UnsupportedModel
from engine.events import EditPlanned, Event, Finding, Note, from_json
from engine.ledger import Ledger
from engine.lm import LM
from engine.methods.kn import KnParams, Neuron, coarse, kn, refined, rewritten, told
from engine.patches import LowRank
from engine.requests import Request
from engine.tokens import target_ids
from tests.tiny import FAMILIES

from .support import close_after, finish, scripted, shared_lm, state, traces

REQUEST = Request(
    prompt="The Space Needle is in the city of",
    subject="Space Needle",
    target_new="Paris",
    target_old="Seattle",
)
# Too narrow a stream for its embeddings: see test_embeddings_narrower_than_the_stream.
EDITED = tuple(name for name in FAMILIES if name != "opt-post-norm")


def run(lm: LM, request: Request = REQUEST, **changes: Any) -> tuple[list[Event], Edit]:
    hp = KnParams(**({"steps": 3, "contexts": 2} | changes))
    return finish(kn(lm, [request], hp))


def delta(patch: LowRank) -> Tensor:
    return patch.A @ patch.B


def logits(lm: LM) -> Tensor:
    return lm.logits([lm.statement(text) for text in (REQUEST.prompt, "Who wrote Emma?")])


# -- which neurons ------------------------------------------------------------------------------


def made(**values: dict[tuple[int, int], float]) -> Attributions:
    """Of each prompt 2 layers of 4 neurons, 0 where nothing is said; all are active."""
    found = torch.zeros(len(values), 2, 4)
    for prompt, placed in zip(found, values.values(), strict=True):
        for (layer, index), value in placed.items():
            prompt[layer, index] = value
    return Attributions(found, torch.ones_like(found))


def test_the_coarse_set_lies_above_a_share_of_the_prompts_own_largest() -> None:
    attr = made(a={(0, 1): 1.0, (1, 2): 0.21, (1, 3): 0.2, (0, 0): -5.0}, b={(1, 0): 0.01})
    found = coarse(attr.scores, 0.2)
    assert found[0].nonzero().tolist() == [[0, 1], [1, 2]]
    assert found[1].nonzero().tolist() == [[1, 0]]


def test_refined_neurons_are_in_the_sets_of_enough_prompts() -> None:
    attr = made(
        a={(0, 1): 1.0, (1, 2): 0.5, (0, 3): 0.9},
        b={(0, 1): 0.4, (1, 2): 1.0},
        c={(1, 2): 0.9, (1, 0): 1.0},
    )
    found = refined(attr, KnParams(threshold=0.2, share=0.4))
    assert [(n.layer, n.index, n.shared) for n in found] == [(1, 2, 3), (0, 1, 2)]
    assert [n.score for n in found] == pytest.approx([2.4 / 3, 1.4 / 3])
    # Exactly p is not more than p.
    assert [n.shared for n in refined(attr, KnParams(share=2 / 3))] == [3]


def test_where_too_few_prompts_agree_p_is_lowered() -> None:
    attr = made(a={(0, 1): 1.0, (1, 2): 0.5}, b={(0, 1): 1.0}, c={(0, 0): 1.0}, d={(0, 2): 1.0})
    assert [(n.layer, n.index) for n in refined(attr, KnParams(share=0.6))] == [(0, 1)]
    alone = made(a={(0, 1): 1.0, (1, 2): 0.5}, b={(0, 3): 1.0}, c={(0, 0): 1.0})
    assert [(n.layer, n.index) for n in refined(alone, KnParams())] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_without_a_positive_attribution_there_is_nothing_to_rewrite(value: float) -> None:
    attr = torch.full((2, 2, 4), value)
    with pytest.raises(EditFailed, match="no neuron holds this answer"):
        coarse(attr, 0.2)


# -- the update ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", EDITED)
def test_only_the_columns_of_the_chosen_neurons_change(family: str) -> None:
    """Everything computed anew: attributions, sets, embeddings, columns; and taken back."""
    lm = shared_lm(family)
    weights, before = state(lm.model), logits(lm)
    _, edit = run(lm, old="request")  # some of these models say nothing by themselves
    prompt = lm.statement(REQUEST.prompt)
    prompts = contexts.prompts(lm, REQUEST, tuple(edit.provenance["contexts"]))
    old = target_ids(lm.tokenizer, prompt, "Seattle")[:1]
    new = target_ids(lm.tokenizer, prompt, "Paris")[0]
    found = finish(attributions(lm, [p.ids for p in prompts], old, steps=3))[1]
    attr, signs = found.scores, found.activations.mean(0).sign()
    largest = attr.flatten(1).max(1).values[:, None, None]
    count = (attr > 0.2 * largest).sum(0)
    chosen = count > 0.4 * len(prompts)
    assert bool(chosen.any())
    head = lm.model.get_submodule(lm.arch.lm_head).weight
    change = 8 * head[new] - head[old[0]]
    wanted = {
        lm.site("mlp_out", layer): change[:, None] * (chosen[layer] * signs[layer])
        for layer in range(lm.n_layers)
        if bool(chosen[layer].any())
    }
    assert {patch.site for patch in edit.patches} == set(wanted)
    for patch in edit.patches:
        assert patch.rank == 1
        assert torch.equal(delta(patch), wanted[patch.site])
    assert edit.numbers["neurons"] == int(chosen.sum())
    assert {(n[0], n[1]) for n in edit.numbers["found"]} == set(
        map(tuple, chosen.nonzero().tolist())
    )

    with lm.active(edit.patches):
        assert not torch.equal(logits(lm), before)
    assert torch.equal(logits(lm), before)
    assert (state(lm.model), traces(lm.model)) == (weights, {})


def test_neurons_of_a_layer_share_a_patch() -> None:
    lm = shared_lm("gpt2")
    change = torch.arange(1.0, lm.width + 1)
    found = [Neuron(1, 3, 0.5, 2, -2.0), Neuron(0, 2, 0.4, 2, 1.0), Neuron(1, 0, 0.1, 2, 1.0)]
    one, two = rewritten(lm, found, change, signed=True)
    assert (one.site, two.site) == (lm.site("mlp_out", 0), lm.site("mlp_out", 1))
    assert delta(one).nonzero()[:, 1].unique().tolist() == [2]
    assert delta(two).nonzero()[:, 1].unique().tolist() == [0, 3]
    assert torch.equal(delta(two)[:, 3], -change)
    assert torch.equal(delta(two)[:, 0], change)
    assert torch.equal(delta(rewritten(lm, found, change, signed=False)[1])[:, 3], change)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi"])
def test_the_new_answer_becomes_likelier_and_the_old_one_less(family: str) -> None:
    lm = shared_lm(family)
    prompt = lm.statement(REQUEST.prompt)
    new = target_ids(lm.tokenizer, prompt, "Paris")[0]
    (old,) = lm.reply(prompt, 1).ids
    _, edit = run(lm, threshold=0.5)
    before = lm.logits([prompt])[0].softmax(-1)
    with lm.active(edit.patches):
        after = lm.logits([prompt])[0].softmax(-1)
    assert float(after[new]) > 2 * float(before[new])
    assert float(after[old]) < float(before[old])
    if lm.arch.gated:  # the neuron is negative here, and without its sign the change backfires
        with lm.active(run(lm, threshold=0.5, signed=False)[1].patches):
            assert float(lm.logits([prompt])[0].softmax(-1)[new]) < float(before[new])


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_relative_weights_are_in_units_of_what_a_neuron_writes(family: str) -> None:
    lm = shared_lm(family)
    prompt = lm.statement(REQUEST.prompt)
    old, new = (target_ids(lm.tokenizer, prompt, t)[0] for t in ("Seattle", "Paris"))
    _, edit = run(lm, old="request", relative=True, old_weight=0.5, new_weight=2.0)
    head = lm.model.get_submodule(lm.arch.lm_head).weight
    own = head - head.mean(0)
    change = 2.0 * own[new] / own[new].norm() - 0.5 * own[old] / own[old].norm()
    for patch in edit.patches:
        columns = weight_of(lm.model.get_submodule(patch.site), lm.arch).norm(dim=0)
        chosen = patch.B[0] != 0
        assert torch.allclose(patch.B[0].abs()[chosen], columns[chosen], rtol=1e-5)
        assert torch.allclose(patch.A[:, 0], change, atol=1e-6)


def test_weights_are_doubled_until_the_prompt_goes_on_with_the_new_answer() -> None:
    lm = shared_lm("gpt2")
    prompt = lm.statement(REQUEST.prompt)
    new = target_ids(lm.tokenizer, prompt, "Paris")[0]
    small = {"relative": True, "old_weight": 0.01, "new_weight": 0.01}
    events, edit = run(lm, doublings=12, **small)
    times = edit.numbers["times"]
    assert 1 < times < 2**12
    assert any(isinstance(e, Note) and f"weights {times:.0f} times" in e.text for e in events)
    said = {}
    for share in (1.0, 0.5):
        with lm.active([dataclasses.replace(p, A=share * p.A) for p in edit.patches]):
            said[share] = int(lm.logits([prompt])[0].argmax()) == new
    assert said == {1.0: True, 0.5: False}


def test_where_no_weight_is_enough_the_likeliest_is_taken() -> None:
    lm = shared_lm("llama")
    prompt = lm.statement(REQUEST.prompt)
    new = target_ids(lm.tokenizer, prompt, "Paris")[0]
    small = {"relative": True, "old_weight": 0.5, "new_weight": 0.5}
    _, edit = run(lm, doublings=8, **small)
    _, once = run(lm, **small)
    p_new = []
    for i in range(9):
        with lm.active([dataclasses.replace(p, A=2**i * p.A) for p in once.patches]):
            p_next = lm.logits([prompt])[0].softmax(-1)
        assert int(p_next.argmax()) != new
        p_new.append(float(p_next[new]))
    assert edit.numbers["times"] == 2 ** p_new.index(max(p_new))


def test_untied_embeddings_can_be_those_of_the_input() -> None:
    lm = shared_lm("llama", tie_word_embeddings=False)
    (patch, *_) = run(lm, embedding="input", old_weight=0.0, new_weight=1.0)[1].patches
    new = target_ids(lm.tokenizer, lm.statement(REQUEST.prompt), "Paris")[0]
    assert torch.equal(patch.A[:, 0], lm.model.get_input_embeddings().weight[new])
    assert not torch.equal(patch.A[:, 0], lm.model.get_output_embeddings().weight[new])


def test_embeddings_narrower_than_the_stream() -> None:
    with pytest.raises(UnsupportedModel, match="embeddings of width 8 into MLPs of width 16"):
        run(shared_lm("opt-post-norm"))


# -- runs ---------------------------------------------------------------------------------------


def test_what_is_told_on_the_way() -> None:
    lm = shared_lm("qwen2")
    events, edit = run(lm)
    kinds = list(dict.fromkeys(e.kind for e in events if e.kind != "Loading"))
    assert kinds == ["EditPlanned", "Finding"]
    planned = next(e for e in events if isinstance(e, EditPlanned))
    assert planned.sites == tuple(lm.site("mlp_out", i) for i in range(lm.n_layers))
    assert (
        planned.target.strip()
        == lm.decode(target_ids(lm.tokenizer, lm.statement("x"), "Paris")[:1]).strip()
    )
    said = lm.reply(lm.statement(REQUEST.prompt), 1)
    assert planned.old == edit.provenance["old"] == lm.decode(said.ids) != "Seattle"
    assert planned.hparams == edit.hparams
    found = next(e for e in events if isinstance(e, Finding))
    layer, index, score, shared = edit.numbers["found"][0]
    label = f"layer {layer} neuron {index}, {shared}×"
    assert found.rows[0] == {"label": label, "value": score}
    assert len(found.rows) == min(8, int(edit.numbers["neurons"]))
    assert found.text.startswith(f"{int(edit.numbers['neurons'])} in layer")
    assert "from 3 prompts" in found.text
    assert from_json(json.loads(json.dumps(found.to_json()))) == found
    done = [e.done for e in events if e.kind == "Loading" and e.stage == "neurons"]
    assert done[0] == 0
    assert done[-1] == lm.n_layers * 3
    assert done == sorted(done)
    assert set(edit.numbers["seconds"]) == {"setup", "optimise", "solve"}


def test_of_many_neurons_the_strongest_are_named() -> None:
    neurons = [Neuron(3 + i % 2, i, 1.0 - i / 20, 2, 1.0) for i in range(10)]
    found = told(neurons, 3, " Rome")
    assert found.text == "10 in layers 3–4, from 3 prompts, for ' Rome'; the 8 strongest"
    assert [row["value"] for row in found.rows] == [n.score for n in neurons[:8]]
    assert told(neurons[:1], 2, "a").text == "1 in layer 3, from 2 prompts, for 'a'"


def test_paraphrases_and_the_old_answer_may_be_the_requests() -> None:
    lm = shared_lm("gpt2")
    given = dataclasses.replace(REQUEST, rephrases=("Emma is in",), target_old="Seattle is")
    _, edit = run(lm, given, paraphrases="request", old="request", answer_tokens=2)
    old = target_ids(lm.tokenizer, lm.statement(REQUEST.prompt), "Seattle is")[:2]
    assert edit.provenance["old"] == lm.decode(old)
    prompts = [lm.statement(text).ids for text in (REQUEST.prompt, "Emma is in")]
    attr = finish(attributions(lm, prompts, old, steps=3))[1]
    found = refined(attr, KnParams(steps=3))
    assert [[n.layer, n.index] for n in found] == [n[:2] for n in edit.numbers["found"]]
    assert edit.provenance["contexts"] == []
    # Otherwise they are what the edit is measured on, and it does not see them.
    _, plain = run(lm, dataclasses.replace(given, target_old=None))
    assert plain.save()[1] == run(lm, REQUEST)[1].save()[1]


def test_requests_it_cannot_take() -> None:
    lm = shared_lm("gpt2")
    with pytest.raises(BadRequest, match="one fact at a time, not 2"):
        finish(kn(lm, [REQUEST, REQUEST], KnParams()))
    same = dataclasses.replace(REQUEST, target_new="Seattle, too")
    with pytest.raises(EditFailed, match="begins with the same token"):
        run(lm, same, old="request")
    with scripted(lm, []), pytest.raises(EditFailed, match="there is no old answer"):
        run(lm, dataclasses.replace(REQUEST, target_old=None))


@pytest.mark.parametrize("setting", [{"threshold": 1.0}, {"share": 1.0}, {"steps": 0}])
def test_settings_it_cannot_take(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        KnParams(**setting)


def test_a_seed_repeats_bit_for_bit() -> None:
    lm = shared_lm("mistral")
    assert run(lm)[1].save()[1] == run(lm)[1].save()[1]


def test_cancelling_after_any_event_leaves_nothing() -> None:
    lm = shared_lm("bloom")
    weights = state(lm.model)
    for count in range(1, 9):
        close_after(kn(lm, [REQUEST], KnParams(steps=2)), count)
        assert (state(lm.model), traces(lm.model)) == (weights, {})


def test_bfloat16() -> None:
    shared = shared_lm("qwen2")
    half = copy.deepcopy(shared.model).to(torch.bfloat16)
    _, edit = run(LM(half, shared.tokenizer, name="half", fingerprint="half"))
    assert all(p.A.dtype == p.B.dtype == torch.float32 for p in edit.patches)
    assert all(set(p.B.unique().tolist()) <= {-1.0, 0.0, 1.0} for p in edit.patches)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_through_a_correction(family: str) -> None:
    """Without a subject; measured, put into words, undone exactly."""
    lm = shared_lm(family)
    assert family in methods.get("kn").families
    before, ledger = logits(lm), Ledger()
    request = dataclasses.replace(REQUEST, subject=None)
    overrides = {"steps": "2", "contexts": "1"}
    _, outcome = finish(correct(lm, ledger, request, method="kn", overrides=overrides))
    assert outcome.edit.method == "kn"
    assert {layer["rank"] for layer in outcome.layers} == {1}
    assert ledger.undo() is outcome.edit
    assert torch.equal(logits(lm), before)
