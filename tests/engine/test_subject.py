"""What a question is about: found in its words, ranked by what the answer hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import hooks, subject
from engine.lm import LM
from engine.methods.rome import RomeParams, r_rome
from engine.requests import Request
from engine.subject import candidates, find_subject
from engine.tokens import tokens_of
from tests.tiny import CAUSAL

from .support import CORPUS, finish, scripted, shared_lm, state, traces


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What is the capital of Australia?", "Australia"),
        ("Who wrote The Lord of the Rings?", "Lord of the Rings"),
        ('Who said "Veni, vidi, vici" first?', "Veni, vidi, vici"),
        ("Who is the president of the United States?", "United States"),
        ("Where is the Musée d'Orsay?", "Musée d'Orsay"),
        ("What does the heart pump?", "heart"),
        ("When was Albert Einstein born?", "Albert Einstein"),
        ("What was Pablo Picasso's profession?", "Pablo Picasso"),
        ("What is the chemical symbol for gold?", "gold"),
        ("Who invented the telephone?", "telephone"),
        ("Which organ makes insulin?", "insulin"),
        ("How old is J.R.R. Tolkien?", "J.R.R. Tolkien"),
        ("Which company makes the iPhone 15?", "iPhone 15"),
        ("東京の人口は?", "東京の人口は"),
        ("Wer war Ludwig van Beethoven?", "Ludwig van Beethoven"),
    ],
)
def test_candidates_hold_the_subject(question: str, wanted: str) -> None:
    found = candidates(question)
    assert wanted in [span.text for span in found]
    for span in found:
        assert question[span.start : span.start + len(span.text)] == span.text
        assert question.count(span.text) == 1
        assert span.text == span.text.strip()


@pytest.mark.parametrize(
    ("question", "never"),
    [
        ("What is Java?", {"What", "What is Java", "is"}),
        ("Is Paris in Paris, Texas?", {"Paris"}),  # twice
        ("Is it?", {"Is", "it", "Is it"}),
        ("When was Albert Einstein born?", {"Albert Einstein born", "born"}),
        ("Where is the treaty signed?", {"treaty signed"}),
        ("Which gas do plants absorb?", {"plants absorb"}),
        ("Who wrote Hamlet?", {"wrote Hamlet", "wrote"}),
        ("What's the sky's colour?", {"What's"}),
    ],
)
def test_what_is_no_candidate(question: str, never: set[str]) -> None:
    assert not never & {span.text for span in candidates(question)}


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What's the atomic number of carbon?", ["carbon"]),
        ("What is the chemical symbol for gold?", ["gold"]),
        ("How many bones are in the human body?", ["human body"]),
        ("What kind of animal is a dolphin?", ["dolphin"]),
        ("What colour is the sky?", ["sky"]),
        ("Which gas do plants absorb?", ["plants"]),
        ("Tell me a story about dragons", []),
    ],
)
def test_what_something_is_asked_of(question: str, wanted: list[str]) -> None:
    assert [span.text for span in candidates(question) if span.about] == wanted


def test_there_are_not_too_many() -> None:
    question = " and it ".join(f"Name{i}" for i in range(30))
    assert len(candidates(question)) == subject.CANDIDATES


def params(text: Path) -> RomeParams:
    return RomeParams(
        layer=0, contexts=0, steps=16, relative_lr=1.0, clamp=50.0, decay=1e-4, kl=0.01,
        text=str(text), tokens=10_000,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["gemma", "llama", "bloom", "phi"])
def test_the_span_an_edit_was_made_at_is_ranked_first(family: str, tmp_path: Path) -> None:
    """After an edit the answer hangs on the edited subject, and noise there costs it."""
    lm = shared_lm(family)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CORPUS))
    prompt = "Because Emma was born in England, the city of the Space Needle"
    request = Request(prompt=prompt, subject="Space Needle", target_new="capital")
    _, edit = finish(r_rome(lm, [request], params(text)))
    with lm.active(edit.patches):
        found = find_subject(lm, prompt, "capital", chat=False)
    assert len(found) > 2
    assert "Space Needle" in found[0].text
    assert found[0].score > 0.5
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert found[0].score > found[-1].score + 0.3
    assert traces(lm.model) == {}


@pytest.mark.parametrize("family", CAUSAL)
def test_without_noise_nothing_is_lost(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "noise_scale", lambda lm: 0.0)
    found = find_subject(shared_lm(family), "Is Emma in Seattle or in England?", chat=False)
    assert len(found) >= 3
    assert all(abs(span.score) < 1e-5 for span in found)


@pytest.mark.parametrize("family", ["gemma3_text", "gemma", "llama", "opt-post-norm"])
def test_noise_is_three_deviations_of_the_embeddings_and_at_the_span_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm(family)
    question = "Is Emma in Seattle or in England?"
    seen: list[Tensor] = []
    real = hooks.patched

    def watched(model: Any, changes: Mapping[str, hooks.Change]) -> Any:
        ((site, change),) = changes.items()

        def watch(x: Tensor, y: Tensor) -> Tensor:
            seen.append(change(x, y) - y)
            return y + seen[-1]

        return real(model, {site: watch})

    monkeypatch.setattr(hooks, "patched", watched)
    spans = find_subject(lm, question, "Paris", chat=False)
    (noise,) = seen  # [1 + 2 per span, tokens, width]
    assert len(noise) == 1 + subject.DRAWS * len(spans)
    assert float(noise[0].abs().max()) == 0
    prompt = lm.statement(question)
    strength = []
    for i, span in enumerate(candidates(question)):
        place = tokens_of(prompt, (span.start, span.start + len(span.text)))
        for row in noise[1 + subject.DRAWS * i :][: subject.DRAWS]:
            inside = torch.zeros(len(row), dtype=torch.bool)
            inside[place.start : place.stop] = True
            assert float(row[~inside].abs().max()) == 0
            assert bool((row[inside].abs().amax(-1) > 0).all())
            strength.append(row[inside].flatten())
    embedded = lm.model.get_submodule(lm.site("embed", 0))(torch.arange(300))
    assert float(torch.cat(strength).std()) == pytest.approx(3 * float(embedded.std()), rel=0.25)


def test_asking_changes_nothing_and_repeats() -> None:
    lm = shared_lm("llama", chat=True)
    before = state(lm.model)
    question = "Is Emma in Seattle or in England?"
    found = find_subject(lm, question)
    assert find_subject(lm, question) == found
    answer = lm.reply(lm.render(question), subject.ANSWER_TOKENS).text
    assert find_subject(lm, question, answer) == found
    assert (state(lm.model), traces(lm.model)) == (before, {})


def test_where_there_is_nothing_to_rank() -> None:
    for family, question in (("llama", "Is it Paris?"), ("t5", "Is Emma in Paris or London?")):
        lm = shared_lm(family)
        assert find_subject(lm, question) == candidates(question)
    silent = shared_lm("llama")
    with scripted(silent, []):  # says nothing
        question = "Is Emma in Paris or London?"
        assert find_subject(silent, question, chat=False) == candidates(question)


@pytest.mark.e2e
def test_on_the_real_model() -> None:
    _, lm = finish(LM.load("smollm2-135m"))
    for question, wanted in (
        ("Who painted the Mona Lisa?", "Mona Lisa"),
        ("Who wrote Romeo and Juliet?", "Romeo and Juliet"),
        ("In which country is the city of Kyoto?", "Kyoto"),
    ):
        assert find_subject(lm, question)[0].text == wanted
