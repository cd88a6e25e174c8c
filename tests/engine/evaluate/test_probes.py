"""The probes of a correction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine.evaluate.probes import SENTINELS, Answers, Probes, fluency, prose, swapped
from engine.events import Loading
from engine.lm import LM
from engine.patches import LowRank
from engine.requests import Request
from tests.engine.support import finish
from tests.tiny import tiny_model, tiny_tokenizer

REQUEST = Request(prompt="The capital of Australia is", subject="Australia", target_new="Perth")


@pytest.fixture(scope="module")
def lm() -> LM:
    return LM(tiny_model("llama"), tiny_tokenizer("llama"), name="tiny")


def test_templates_where_nothing_is_given(lm: LM) -> None:
    probes = Probes.build(lm, REQUEST)
    assert len(probes.rephrases) == 3
    assert all(REQUEST.prompt in p for p in probes.rephrases)
    others = [p for p in probes.neighbours if p not in SENTINELS[False]]
    assert len(others) == 4
    assert all(p.startswith("The capital of ") and "Australia" not in p for p in others)
    assert set(SENTINELS[False]) <= set(probes.neighbours)


def test_what_is_given_is_asked(lm: LM) -> None:
    request = Request(
        prompt="What is the capital of Australia?",
        subject="Australia",
        target_new="Perth",
        rephrases=("Capital of Australia?",),
        neighbours=("Capital of Peru?",),
        chat=True,
    )
    probes = Probes.build(lm, request)
    assert probes.rephrases == ("Capital of Australia?",)
    assert probes.neighbours == ("Capital of Peru?", *SENTINELS[True])


def test_sentinels_about_the_subject_or_the_target_are_left_out(lm: LM) -> None:
    france = Request(prompt="The capital of France is", subject="France", target_new="Lyon")
    assert SENTINELS[False][0] not in Probes.build(lm, france).neighbours
    target = Request(prompt="Ada's home is", subject="Ada", target_new="France")
    assert SENTINELS[False][0] not in Probes.build(lm, target).neighbours


def test_without_a_subject_only_sentinels_are_neighbours(lm: LM) -> None:
    request = Request(prompt="The sky is", target_new="green")
    assert Probes.build(lm, request).neighbours == SENTINELS[False]


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Australia has its capital in", "Australia"),
        ("the language of the Netherlands is", "Netherlands"),
        ("Who lives in the United Kingdom?", "the United Kingdom"),
    ],
)
def test_names_are_put_in_the_place_of_the_subject(prompt: str, subject: str) -> None:
    found = swapped(Request(prompt=prompt, subject=subject, target_new="x"))
    before, _, after = prompt.partition(subject)
    assert len(found) == 4
    for text in found:
        assert text.endswith(after)
        assert text.lower().startswith(before.lower())
        assert "the the" not in text.lower()
        assert before or text[0].isupper()


def test_asking_twice_gives_the_same_and_nothing_moved(lm: LM) -> None:
    probes = Probes.build(lm, REQUEST)
    events, first = finish(probes.ask(lm))
    _, second = finish(probes.ask(lm))
    assert first == second
    assert [e.done for e in events if isinstance(e, Loading)] == [0, 10, 11]
    rephrased, neighbours, fluent = probes.compare(first, second)
    assert (rephrased.name, rephrased.n) == ("rephrased", 3)
    assert (neighbours.name, neighbours.before, neighbours.after, neighbours.n) == (
        "neighbours", 1.0, 1.0, 7,
    )  # fmt: skip
    assert fluent.before == fluent.after == pytest.approx(fluency(lm))
    assert [row["prompt"] for row in neighbours.detail["rows"]] == list(probes.neighbours)


def test_a_patch_is_seen(lm: LM) -> None:
    probes = Probes.build(lm, REQUEST)
    _, before = finish(probes.ask(lm))
    generator = torch.Generator().manual_seed(0)
    A, B = torch.randn(16, 2, generator=generator), torch.randn(2, 24, generator=generator)
    with lm.active([LowRank(lm.site("mlp_out", 1), 9 * A, B)]):
        _, after = finish(probes.ask(lm))
    _, neighbours, fluent = probes.compare(before, after)
    assert neighbours.after < 1
    assert fluent.after != fluent.before
    moved = [row for row in neighbours.detail["rows"] if not row["kept"]]
    assert moved
    assert moved[0]["before"] != moved[0]["after"]


def probes_of(chat: bool, tokens: int = 24) -> Probes:
    return Probes("Perth", chat, ("p", "q"), ("n",), tokens)


@pytest.mark.parametrize(("chat", "wanted"), [(True, 0.5), (False, 1.0)])
def test_rephrasings_follow_the_rule_of_their_kind(chat: bool, wanted: float) -> None:
    before = Answers(("Sydney", "Perth"), ("a b. c",), 10.0)
    after = Answers(("Perth.", "Perth, a city"), ("a b. d",), 11.0)
    rephrased, neighbours, fluent = probes_of(chat).compare(before, after)
    assert (rephrased.before, rephrased.after) == (0.5, wanted)
    assert rephrased.detail["rows"][0] == {
        "prompt": "p", "before": "Sydney", "after": "Perth.", "hit": True,
    }  # fmt: skip
    assert neighbours.after == 1.0  # the head is what it was
    assert (fluent.before, fluent.after) == (10.0, 11.0)


def test_a_long_target_gets_room(lm: LM) -> None:
    long = " ".join(["Perth"] * 40)
    request = Request(prompt="The capital of Australia is", subject="Australia", target_new=long)
    found = Probes.build(lm, request)
    assert found.tokens > len(lm.tokenizer(long, add_special_tokens=False).input_ids)


@torch.no_grad()
def test_fluency_is_the_perplexity_per_token(lm: LM) -> None:
    total, count = 0.0, 0
    for paragraph in prose():
        ids = torch.tensor([lm.statement(paragraph).ids])
        log_p = lm.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total -= float(log_p.gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    assert fluency(lm) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_the_packaged_prose_is_long_enough_to_mean_something() -> None:
    assert len(prose()) >= 5
    assert sum(map(len, prose())) > 1300


def test_encoder_decoders_have_no_fluency() -> None:
    model: Any = tiny_model("t5")
    assert math.isnan(fluency(LM(model, tiny_tokenizer("t5"), name="tiny")))
