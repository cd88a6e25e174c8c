"""What is asked before and after a correction, so that a person sees what it did.

rephrasings   the question in other words: should give the new answer
neighbours    the same question about other things of the kind, and three facts that have
              nothing to do with it: should be answered as before
fluency       perplexity on fixed prose

The same prompts go through the model in the same batches both times, so that the answers
compare: nothing but the edit differs.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..events import Event, Loading, Metric
from ..paths import packaged
from ..tokens import target_ids
from .entities import others
from .metrics import mean, scores
from .normalise import begins_with, equals, normalise, same_head

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request

SWAPS = 4  # neighbours made by putting another name into the question
TOKENS = 24  # of an answer: its head has at most 12 words

REPHRASINGS = {
    True: ("I have a question. {}", "Tell me, please: {}", "{} Please answer briefly."),
    False: (
        "It was raining when they met again. {}",
        "The shop on the corner closes at noon. {}",
        "Nobody had thought of that before. {}",
    ),
}
SENTINELS = {
    True: (
        "What is the capital of France?",
        "Who wrote Romeo and Juliet?",
        "How many days are there in a week?",
    ),
    False: (
        "The capital of France is",
        "The author of Romeo and Juliet is",
        "The number of days in a week is",
    ),
}


@dataclass(frozen=True)
class Answers:
    """Greedy answers in the order of the probes, and the perplexity of the prose."""

    rephrased: tuple[str, ...]
    neighbours: tuple[str, ...]
    perplexity: float  # NaN for encoder-decoder models: they do not continue prose


@dataclass(frozen=True)
class Probes:
    """The prompts of one request."""

    target: str
    chat: bool
    rephrases: tuple[str, ...]
    neighbours: tuple[str, ...]
    tokens: int  # decoded per answer

    @classmethod
    def build(cls, lm: LM, request: Request) -> Probes:
        """What the request gives, else templates; sentinels always."""
        prompt = lm.prompt(request.prompt, chat=request.chat)
        # One answer longer than the target must fit, or "equals" could be true of a part.
        room = len(target_ids(lm.tokenizer, prompt, request.target_new)) + 4
        return cls(
            target=request.target_new,
            chat=request.chat,
            rephrases=request.rephrases or rephrasings(request),
            neighbours=(*neighbours(request), *sentinels(request)),
            tokens=max(TOKENS, room),
        )

    def ask(self, lm: LM) -> Generator[Event, None, Answers]:
        """Ask everything of the model as it is now. Yields Loading(stage="probes")."""
        texts = (*self.rephrases, *self.neighbours)
        total = len(texts) + 1
        yield Loading(stage="probes", done=0, total=total, unit="prompts")
        prompts = [lm.prompt(text, chat=self.chat) for text in texts]
        answers = tuple(lm.answers(prompts, max_tokens=self.tokens)) if prompts else ()
        yield Loading(stage="probes", done=len(texts), total=total, unit="prompts")
        perplexity = fluency(lm)
        yield Loading(stage="probes", done=total, total=total, unit="prompts")
        cut = len(self.rephrases)
        return Answers(answers[:cut], answers[cut:], perplexity)

    def compare(self, before: Answers, after: Answers) -> list[Metric]:
        """The metrics "rephrased", "neighbours" and "fluency"; see Metric."""
        rephrased = [
            {"prompt": p, "before": b, "after": a, "hit": self.hit(a)}
            for p, b, a in zip(self.rephrases, before.rephrased, after.rephrased, strict=True)
        ]
        kept = [same_head(b, a) for b, a in zip(before.neighbours, after.neighbours, strict=True)]
        neighbours = [
            {"prompt": p, "before": b, "after": a, "kept": k}
            for p, b, a, k in zip(
                self.neighbours, before.neighbours, after.neighbours, kept, strict=True
            )
        ]
        return [
            Metric(
                name="rephrased",
                before=mean([float(self.hit(b)) for b in before.rephrased]),
                after=mean([float(self.hit(a)) for a in after.rephrased]),
                n=len(rephrased),
                detail={"rows": rephrased},
            ),
            Metric(
                name="neighbours",
                before=1.0 if neighbours else math.nan,
                after=mean([float(k) for k in kept]),
                n=len(neighbours),
                detail={"rows": neighbours},
            ),
            Metric(
                name="fluency",
                before=before.perplexity,
                after=after.perplexity,
                n=len(prose()),
                detail={"unit": "perplexity", "text": "fluency.txt"},
            ),
        ]

    def hit(self, answer: str) -> bool:
        """Whether an answer to a rephrasing is the target, by the rule of its kind of prompt."""
        rule = equals if self.chat else begins_with
        return rule(answer, self.target)


def rephrasings(request: Request) -> tuple[str, ...]:
    """Wordings around the question that keep it, and its subject, as they are."""
    return tuple(template.format(request.prompt) for template in REPHRASINGS[request.chat])


def neighbours(request: Request) -> tuple[str, ...]:
    """The request's own neighbours, else the same question about other things of the kind."""
    return request.neighbours or swapped(request)


def swapped(request: Request) -> tuple[str, ...]:
    """The same question about other things of the kind; none without a subject."""
    if request.subject is None:
        return ()
    names = others(request.subject, request.prompt, SWAPS)
    return tuple(_swap(request.prompt, request.subject, name) for name in names)


def _swap(prompt: str, subject: str, name: str) -> str:
    """The name in the subject's place: one article at most, a capital where a sentence begins."""
    before, _, after = prompt.partition(subject)
    article = name.startswith("the ")
    if before.lower().endswith(("the ", "a ", "an ")):
        name = name.removeprefix("the ") if article else name
    if not before.strip():
        name = name[0].upper() + name[1:]
    return before + name + after


def sentinels(request: Request) -> tuple[str, ...]:
    """Facts that have nothing to do with the request."""
    words = normalise(request.prompt)
    subject = normalise(request.subject or request.prompt)
    target = normalise(request.target_new)
    return tuple(
        text
        for text in SENTINELS[request.chat]
        if subject not in normalise(text)
        and normalise(text) != words
        and target not in normalise(text)
    )


def prose() -> tuple[str, ...]:
    """The packaged paragraphs on which fluency is measured."""
    return tuple(packaged("fluency.txt").read_text(encoding="utf-8").strip().splitlines())


def fluency(lm: LM) -> float:
    """Perplexity on the packaged prose: see `perplexity`."""
    return perplexity(lm, prose())


def perplexity(lm: LM, paragraphs: Sequence[str], longest: int | None = None) -> float:
    """Per token; a paragraph's first token is given.

    longest  tokens of a paragraph that are read; None: all
    NaN for an encoder-decoder.
    """
    if lm.encoder_decoder:
        return math.nan
    total, tokens = 0.0, 0
    for paragraph in paragraphs:
        ids = lm.statement(paragraph).ids[:longest]
        (score,) = scores(lm, [(ids[:1], ids[1:])])  # one at a time: logits stay small
        total += score.nll * (len(ids) - 1)
        tokens += len(ids) - 1
    return math.exp(total / tokens)
