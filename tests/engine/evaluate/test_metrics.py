"""Scores against a plain computation, and the record's numbers against hand-made ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from engine.evaluate.datasets import Record
from engine.evaluate.metrics import (
    Measured,
    Said,
    Score,
    harmonic_mean,
    judge,
    measure,
    said,
    scores,
)
from engine.generate import Reply
from engine.lm import LM
from engine.requests import Probe, Request
from tests.tiny import CHATML, tiny_model, tiny_tokenizer

PAIRS = [
    ("The capital of Australia is", " Canberra"),
    ("Jane", " Austen wrote Emma in 1815"),
    ("Jane", " Austen wrote"),
    ("Jane", " I"),
    ("The Space Needle is in the city of", " Seattle, and"),
    ("Who", " I"),
]


def make(family: str, chat: bool = False) -> LM:
    tokenizer: Any = tiny_tokenizer(family)
    if chat:
        tokenizer = type(tokenizer)(
            tokenizer_object=tokenizer.backend_tokenizer,
            eos_token=tokenizer.eos_token,
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        )
        tokenizer.chat_template = CHATML
    return LM(tiny_model(family), tokenizer, name=f"tiny-{family}")


def ids(lm: LM) -> list[tuple[list[int], list[int]]]:
    return [
        (list(lm.statement(prompt).ids), lm.tokenizer(target, add_special_tokens=False).input_ids)
        for prompt, target in PAIRS
    ]


@torch.no_grad()
def plain(lm: LM, prompt: Sequence[int], target: Sequence[int]) -> tuple[float, list[int]]:
    """Token by token, one sequence, no padding, all logits."""
    total, best = 0.0, []
    for k, token in enumerate(target):
        if lm.encoder_decoder:
            start = lm.model.config.decoder_start_token_id
            decoder = torch.tensor([[start, *target[:k]]])
            out = lm.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder)
        else:
            out = lm.model(input_ids=torch.tensor([[*prompt, *target[:k]]]))
        log_p = out.logits[0, -1].log_softmax(-1)
        total -= float(log_p[token])
        best.append(int(log_p.argmax()))
    return total / len(target), best


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "bloom", "gemma2", "opt", "t5"])
def test_padded_batches_score_as_single_sequences_do(family: str) -> None:
    lm = make(family)
    pairs = ids(lm)
    for found, (prompt, target) in zip(scores(lm, pairs), pairs, strict=True):
        nll, best = plain(lm, prompt, target)
        assert found.nll == pytest.approx(nll, abs=1e-4)
        assert list(found.argmax) == best
        hits = [b == t for b, t in zip(best, target, strict=True)]
        assert found.hits == pytest.approx(sum(hits) / len(hits))


def test_many_pairs_are_split_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make("llama")
    pairs = ids(lm)
    whole = scores(lm, pairs)
    monkeypatch.setattr("engine.evaluate.metrics.BATCH_TOKENS", 20)
    split = scores(lm, pairs)
    assert [s.nll for s in split] == pytest.approx([s.nll for s in whole], abs=1e-5)
    assert scores(lm, []) == []


def test_what_begins_another_sequence_is_read_off_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make("llama")
    read = []
    pack = lm.pack
    monkeypatch.setattr(lm, "pack", lambda rows: read.extend(rows) or pack(rows))
    scores(lm, [([1, 2, 3], [4]), ([1, 2, 3], [5, 6]), ([1, 2, 3], [7, 6]), ([2, 3], [4])])
    assert sorted(read) == [(1, 2, 3, 5), (1, 2, 3, 7), (2, 3)]


def test_a_pair_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        scores(make("llama"), [([1, 2], [])])


def test_greedy_text_is_judged_by_what_it_says() -> None:
    lm = make("llama")
    prompt = lm.statement("The capital of Australia is")
    text = lm.answers([prompt], max_tokens=14)[0].split("\n")[0]
    first = text.split()[0]
    assert said(lm, [prompt], first)[0].hit
    (wrong,) = said(lm, [prompt], "Zürich Ærø")
    assert not wrong.hit
    assert said(lm, [], "x") == []


@pytest.mark.parametrize(
    ("text", "reason", "hit"),
    [
        ("Oslo.", "stop", True),
        ("Oslo", "length", False),  # right words, but it did not end there
        ("Oslo is", "stop", False),
    ],
)
def test_a_chat_answer_is_the_target_and_ends(
    monkeypatch: pytest.MonkeyPatch, text: str, reason: str, hit: bool
) -> None:
    lm = make("gpt2", chat=True)
    prompt = lm.render("Where is Ada from?")
    monkeypatch.setattr(lm, "reply", lambda *_, **__: Reply(text, (1,), reason, 0.0, 0.0))
    assert said(lm, [prompt], "Oslo") == [Said(text, hit)]


NEW, OLD = Score(1.0, (5,), 1.0), Score(2.0, (6,), 0.0)


def record(contrast: bool = True) -> Record:
    request = Request(
        prompt="Ada is from",
        subject="Ada",
        target_new="Oslo",
        target_old="Rome",
        rephrases=("So Ada is from", "Ada hails from"),
    )
    probes = tuple(Probe(prompt=p, answer="Rome") for p in ("Bo is from", "Cy is from"))
    return Record(id="1", request=request, neighbours=probes, contrast=contrast)


def measured(edit: Any, paraphrases: Any, neighbours: Any, hits: Sequence[bool]) -> Measured:
    texts = [Said("x", hit) for hit in hits]
    return Measured(edit, tuple(paraphrases), tuple(neighbours), texts[0], tuple(texts[1:]))


def test_the_numbers_of_a_record() -> None:
    before = measured((OLD, NEW), [(OLD, NEW)] * 2, [(OLD, NEW)] * 2, [False] * 3)
    after = measured(
        (NEW, OLD), [(NEW, OLD), (OLD, NEW)], [(OLD, NEW), (NEW, OLD)], [True, True, False]
    )
    found = judge(record(), before, after)
    gap = math.exp(-1) - math.exp(-2)
    assert found["ES"] == {"before": 0.0, "after": 1.0}
    assert found["EM"] == {"before": pytest.approx(-gap), "after": pytest.approx(gap)}
    assert found["PS"] == {"before": 0.0, "after": 0.5}
    assert found["PM"]["after"] == pytest.approx(0)
    # A neighbour is kept when its right answer, not the new one, is likelier.
    assert found["NS"] == {"before": 1.0, "after": 0.5}
    assert found["NM"]["before"] == pytest.approx(gap)
    assert found["said"] == {"before": 0.0, "after": 1.0}
    assert found["rephrased"] == {"before": 0.0, "after": 0.5}
    assert found["rel"] == {"before": 0.0, "after": 1.0}
    assert found["gen"] == {"before": 0.0, "after": 0.5}
    # Argmax of the second neighbour moved from 5 to 6.
    assert found["loc"] == {"before": 1.0, "after": 0.5}


def test_what_is_not_defined_is_nan() -> None:
    state = measured((NEW, None), [], [(OLD, NEW)], [True])
    found = judge(record(contrast=False), state, state)
    assert math.isnan(found["ES"]["after"])
    assert math.isnan(found["PS"]["after"])
    assert math.isnan(found["NS"]["after"])
    assert math.isnan(found["rephrased"]["after"])
    assert found["loc"]["after"] == 1.0


def test_measuring_a_record_scores_the_right_pairs() -> None:
    lm = make("llama")
    found = measure(lm, record())
    new, old = (
        plain(lm, lm.statement("Ada hails from").ids, target_of(lm, word))
        for word in ("Oslo", "Rome")
    )
    assert found.paraphrases[1][0].nll == pytest.approx(new[0], abs=1e-4)
    assert found.paraphrases[1][1] is not None
    assert found.paraphrases[1][1].nll == pytest.approx(old[0], abs=1e-4)
    beside = plain(lm, lm.statement("Cy is from").ids, target_of(lm, "Rome"))
    assert found.neighbours[1][1].nll == pytest.approx(beside[0], abs=1e-4)
    assert len(found.rephrased) == 2


def test_a_record_without_an_old_answer() -> None:
    lm = make("llama")
    request = Request(prompt="Ada is from", subject="Ada", target_new="Oslo")
    found = measure(lm, Record(id="1", request=request, neighbours=(), contrast=True))
    assert found.edit[1] is None
    assert found.neighbours == ()


def target_of(lm: LM, word: str) -> list[int]:
    """Ids of a word in the middle of a text: what follows the prompt in the joined text."""
    whole = lm.tokenizer(f"x {word}", add_special_tokens=False).input_ids
    return list(whole[len(lm.tokenizer("x", add_special_tokens=False).input_ids) :])


def test_harmonic_mean() -> None:
    assert harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([1.0, 0.0]) == 0.0
    assert math.isnan(harmonic_mean([1.0, math.nan]))
