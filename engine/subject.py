"""Which words of a question it is about.

Candidates are found in the text (quoted words, capitalised runs, runs of content words) and
ranked by a light causal trace (Meng et al. 2022, section 2): the span whose embeddings, when
noised, cost the answer most is the one the answer hangs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks
from .requests import occurrences
from .tokens import Rendered, continuation, tokens_of
from .trace import noise_scale

if TYPE_CHECKING:
    from .lm import LM

DRAWS = 2  # noise samples per span
ANSWER_TOKENS = 8  # of the answer, read for its probability
CANDIDATES = 10

_QUOTED = re.compile(r"[\"“«‘']([^\"”»’']{2,})[\"”»’'](?!\w)")
_WORD = re.compile(r"[^\W_]+(?:['’.\-&][^\W_]+)*", re.UNICODE)
_SHORTENED = re.compile(r"['’](?:s|m|re|ve|ll|d)$", re.IGNORECASE)
_JOINERS = {"of", "the", "de", "la", "le", "van", "von", "der", "den", "and", "del", "da", "di",
            "du", "on", "in", "for", "&"}  # fmt: skip
_FUNCTION = _JOINERS | {
    "a", "an", "is", "are", "was", "were", "be", "been", "what", "which", "who", "whom", "whose",
    "where", "when", "why", "how", "many", "much", "do", "does", "did", "has", "have", "had",
    "can", "could", "will", "would", "should", "to", "from", "at", "by", "with", "as", "or", "it",
    "its", "this", "that", "these", "those", "there", "i", "you", "he", "she", "we", "they", "me",
    "my", "your", "his", "her", "our", "their", "name", "tell", "please", "say", "give", "about",
    "called", "known", "most", "some", "any", "not", "than", "into", "if", "so", "also",
}  # fmt: skip

_ABOUT = re.compile(
    r"(?<!\bkind )(?<!\btype )(?<!\bsort )\b(?:of|for|in)\s+(?:(?:the|a|an)\s+)?$", re.IGNORECASE
)
_INVERTED = re.compile(  # a question whose verb, or the rest of it, comes after its subject
    r"(?:(?:in|on|at|from|to|by|for|with)\s+)?(?:what|which|who|whom|whose|where|when|why|how)\b"
    r"[^,]*?\b(?P<helper>do|does|did|is|are|was|were)\s",
    re.IGNORECASE,
)
_DOER = re.compile(r"who\s+", re.IGNORECASE)
_THING = re.compile(r"(?:which|what)\s+", re.IGNORECASE)
_PARTICIPLE = re.compile(
    r"\w+ed|born|built|made|known|found|held|spoken|written|drawn|sung|won|set|shot|sold|"
    r"begun|grown|given|taken|seen|worn|eaten|told|taught|fought|lost|cut",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Span:
    """Words of the prompt, where they begin in it, and how much the answer hangs on them.

    score  drop of the answer's mean token log-probability when the span is noised, in nats
    about  the question asks something of it: the symbol for *gold*, what animal a *dolphin* is
    """

    text: str
    start: int
    score: float = 0.0
    about: bool = False


def candidates(question: str) -> list[Span]:
    """Spans that may be the subject, each occurring once in the question; torch-free."""
    spans: dict[str, Span] = {}
    for start, end in (*_quoted(question), *_capitalised(question), *_content(question)):
        text = question[start:end]
        if occurrences(question, text) == 1:
            spans.setdefault(text, Span(text, start))
    about = _about(question, list(spans.values())[:CANDIDATES])
    return [replace(span, about=span in about) for span in list(spans.values())[:CANDIDATES]]


def _about(question: str, spans: Sequence[Span]) -> list[Span]:
    """Those behind "of", "for" or "in"; without any, those behind "is", "does" and their kin."""
    behind = [span for span in spans if _ABOUT.search(question[: span.start])]
    inverted = _INVERTED.match(question)
    if behind or inverted is None:
        return behind
    return [span for span in spans if span.start >= inverted.end()]


def find_subject(lm: LM, question: str, answer: str = "", *, chat: bool = True) -> list[Span]:
    """Candidates, the one that the answer hangs on most first.

    answer  what the model said; asked of the model when empty
    """
    spans = candidates(question)
    prompt = lm.prompt(question, chat=chat)
    if len(spans) < 2 or lm.encoder_decoder:
        return spans
    text = answer or lm.reply(prompt, ANSWER_TOKENS).text
    if not text:
        return spans
    target = continuation(lm.tokenizer, prompt.glue + text)[:ANSWER_TOKENS]
    drops = _trace(lm, prompt, target, spans)
    ranked = [replace(span, score=drop) for span, drop in zip(spans, drops, strict=True)]
    return sorted(ranked, key=lambda span: -span.score)


@torch.no_grad()
def _trace(lm: LM, prompt: Rendered, target: Sequence[int], spans: Sequence[Span]) -> list[float]:
    """Drop of the target's mean log-probability for each span: one batch, clean row first."""
    row = (*prompt.ids, *target[:-1])
    places = [range(0), *(p for s in spans for p in [_tokens(prompt, s)] * DRAWS)]
    ids, mask = lm.pack([row] * len(places))
    noise = torch.Generator().manual_seed(0)
    scale = noise_scale(lm)

    def corrupt(_x: Tensor, y: Tensor) -> Tensor:
        noised = y.clone()
        for i, place in enumerate(places):
            where = slice(place.start, place.stop)
            shape = noised[i, where].shape
            draw = torch.randn(shape, generator=noise) * scale
            noised[i, where] += draw.to(noised)
        return noised

    columns = torch.arange(len(prompt.ids) - 1, len(row), device=ids.device)
    rows = torch.arange(len(places), device=ids.device).repeat_interleave(len(columns))
    with hooks.patched(lm.model, {lm.site("embed", 0): corrupt}):
        out = lm.forward(ids, mask, at=(rows, columns.repeat(len(places))))
    log_p = out.logits[0].float().log_softmax(-1).view(len(places), len(columns), -1)
    wanted = torch.tensor(list(target), device=ids.device)
    said = log_p.gather(2, wanted[None, :, None].expand(len(places), -1, 1))[..., 0].mean(1)
    drops = said[0] - said[1:].view(len(spans), DRAWS).mean(1)
    return [float(d) for d in drops]


def _tokens(prompt: Rendered, span: Span) -> range:
    start = prompt.question[0] + span.start
    return tokens_of(prompt, (start, start + len(span.text)))


def _quoted(text: str) -> Iterator[tuple[int, int]]:
    for found in _QUOTED.finditer(text):
        yield found.span(1)


def _capitalised(text: str) -> Iterator[tuple[int, int]]:
    """Runs of capitalised words and numbers, with small joiners inside ("Lord of the Rings")."""
    words = list(_WORD.finditer(text))
    i = 0
    while i < len(words):
        if not _proper(words[i].group()):
            i += 1
            continue
        j = i
        for k in range(i + 1, len(words)):
            if not _joined(text, words[k - 1], words[k]):
                break
            if _proper(words[k].group()):
                j = k
            elif words[k].group() not in _JOINERS:
                break
        owned = _SHORTENED.search(words[j].group())  # Picasso's
        yield words[i].start(), words[j].end() - (len(owned.group()) if owned else 0)
        i = j + 1


def _content(text: str) -> Iterator[tuple[int, int]]:
    """Runs of words that are not function words, without the verb of a question."""
    runs = list(_runs(text))
    if runs and _is_verb(text, runs[-1]):
        runs[-1] = runs[-1][:-1]
    doer = _DOER.match(text)
    if runs and doer and doer.end() == runs[0][0].start():  # who *wrote* Hamlet
        runs[0] = runs[0][1:]
    for run in filter(None, runs):
        yield run[0].start(), run[-1].end()
    thing = _THING.match(text)
    if thing and runs and runs[0] and thing.end() == runs[0][0].start() and len(runs[0]) > 2:
        yield runs[0][2].start(), runs[0][-1].end()  # which organ makes *insulin*


def _is_verb(text: str, run: Sequence[re.Match[str]]) -> bool:
    """Whether a question's last run ends in its verb: When was Albert Einstein *born*?"""
    question = _INVERTED.match(text)
    last = run[-1].group()
    if question is None or len(run) < 2 or run[0].start() < question.end() or _proper(last):
        return False
    done = question["helper"].lower() in ("do", "does", "did")
    return done or _PARTICIPLE.fullmatch(last) is not None


def _runs(text: str) -> Iterator[list[re.Match[str]]]:
    run: list[re.Match[str]] = []
    for word in _WORD.finditer(text):
        apart = run and not _joined(text, run[-1], word)
        function = _is_function(word.group())
        if run and (function or apart):
            yield run
            run = []
        if not function:
            run.append(word)
    if run:
        yield run


def _is_function(word: str) -> bool:
    """A small word, also with something short at its end: what's, I'm."""
    return word.lower() in _FUNCTION or _SHORTENED.sub("", word.lower()) in _FUNCTION


def _joined(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether only blanks stand between two words; the full stop of an initial is one of them."""
    gap = text[one.end() : other.start()]
    initial = one.group()[-1].isupper() and not one.group()[-2:-1].isalnum()
    return (gap.removeprefix(".") if initial else gap).isspace()


def _proper(word: str) -> bool:
    """Capitalised (or holding a capital or a digit), and not a question's first word."""
    return any(c.isupper() or c.isdigit() for c in word) and not _is_function(word)
