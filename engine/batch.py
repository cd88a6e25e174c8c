"""Correcting many answers in one edit, with a method that edits several facts at once.

As `engine.correct`: measure, edit, measure again; the edit joins the ledger at the very end, so
that a cancelled batch leaves the model as it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import alarms
from .correct import hparams_of, made, method_of, said
from .edit import new_id
from .errors import AlreadySaid, BadRequest
from .evaluate.metrics import Pair, mean, scores
from .evaluate.normalise import same_head
from .evaluate.probes import TOKENS, fluency, prose
from .events import Event, Loading, Metric, Note
from .generate import BATCH
from .ledger import Ledger
from .outcome import Answered, Clock, Corrected, Outcome, concluded, provenance_of
from .requests import Request
from .tokens import Rendered, target_ids

if TYPE_CHECKING:
    from .lm import LM

_SHOWN = 3  # facts that a verdict names
_ROOM = 4  # tokens decoded behind a target


def correct_batch(
    lm: LM,
    ledger: Ledger,
    requests: Sequence[Request],
    *,
    method: str,
    overrides: Mapping[str, str] | None = None,
    probes: bool = True,
    seed: int = 0,
    edit_id: str = "",
) -> Generator[Event, None, Outcome]:
    """Edit several facts into the model at once; `Outcome.facts` has what became of each.

    Facts that the model already answers as wanted are left out: they are in `Outcome.already`. Of
    the probes only each fact's given rephrasings and neighbours are asked, and the held-out text.
    Otherwise as `engine.correct.correct`. Raises BadRequest for one question asked for twice, too;
    AlreadySaid where nothing is left.
    """
    clock = Clock()
    requests = [request.check() for request in requests]
    _check_distinct(requests)
    for request in requests:
        info = method_of(lm, request, method)
    if not info.batch:
        raise BadRequest(f"{method} edits one fact at a time.", "For many: --method memit.")
    hp, sources = hparams_of(lm, info, overrides or {}, seed)
    with lm.active(ledger.patches()):
        found = yield from ask_all(lm, requests)
        requests, before, already = _parted(requests, found)
        for fact in already:
            yield Note(text=f"left out: {fact.request.prompt!r} is answered so already")
        asked = _given(requests) if probes else []
        probed = yield from _probe(lm, asked)
        perplexity = fluency(lm) if probes else math.nan
        clock.lap("probes")
    edit = yield from made(lm, ledger, info, requests, hp, edit_id or new_id())
    clock.lap("edit")
    edit = dataclasses.replace(edit, provenance=provenance_of(lm, edit, sources, seed))
    with lm.active(Ledger((*ledger.edits, edit)).patches()):
        after = yield from ask_all(lm, requests)
        reprobed = yield from _probe(lm, asked)
        now = fluency(lm) if probes else math.nan
        warnings = alarms.warnings(lm, lm.patches, now)
    clock.lap("probes")
    facts = judged(requests, before, after)
    metrics = [said_metric(facts), *_compared(asked, probed, reprobed)]
    if probes:
        metrics.append(Metric(name="fluency", before=perplexity, after=now, n=len(prose())))
    verdict = " ".join([verdict_of(facts), *warnings])
    outcome = yield from concluded(lm, ledger, edit, facts, verdict, metrics, clock)
    return dataclasses.replace(outcome, already=already)


def judged(
    requests: Sequence[Request], before: Sequence[Answered], after: Sequence[Answered]
) -> tuple[Corrected, ...]:
    """What became of each fact, by its answers of `ask_all`."""
    return tuple(
        Corrected(request, b, a, took(request, a.answer))
        for request, b, a in zip(requests, before, after, strict=True)
    )


def _parted(
    requests: Sequence[Request], found: Sequence[Answered]
) -> tuple[list[Request], list[Answered], tuple[Corrected, ...]]:
    """The facts to edit, with the present answers as the old ones; and those that need no edit.

    Raises AlreadySaid.
    """
    kept, before, already = [], [], []
    for request, answered in zip(requests, found, strict=True):
        if took(request, answered.answer):
            already.append(Corrected(request, answered, answered, True))
            continue
        if not request.target_old and answered.answer:
            request = dataclasses.replace(request, target_old=answered.answer)
        kept.append(request)
        before.append(answered)
    if not kept:
        raise AlreadySaid("the model already answers every one of these facts so.")
    return kept, before, tuple(already)


def _check_distinct(requests: Sequence[Request]) -> None:
    if not requests:
        raise BadRequest("there are no facts to edit.")
    seen: set[Any] = set()
    for request in requests:
        if request.key() in seen:
            raise BadRequest(
                f"{request.prompt!r} is asked for twice.", "A batch has one answer a question."
            )
        seen.add(request.key())


def ask_all(lm: LM, requests: Sequence[Request]) -> Generator[Event, None, list[Answered]]:
    """The greedy answers, and how likely new and old answer are, a batch of prompts at a time."""
    yield _asked(0, len(requests))
    prompts = [lm.prompt(r.prompt, chat=r.chat) for r in requests]
    new = _pairs(lm, prompts, [r.target_new for r in requests])
    old = _pairs(lm, prompts, [r.target_old for r in requests])
    room = max([TOKENS, *(len(ids) + _ROOM for _, ids in new.values())])
    found: list[Answered] = []
    for start in range(0, len(requests), BATCH):
        some = range(start, min(start + BATCH, len(requests)))
        texts = lm.answers([prompts[i] for i in some], max_tokens=room)
        found += [
            Answered(text, p_new, p_old, ended=True)
            for text, p_new, p_old in zip(
                texts, _likely(lm, new, some), _likely(lm, old, some), strict=True
            )
        ]
        yield _asked(len(found), len(requests))
    return found


def _pairs(lm: LM, prompts: Sequence[Rendered], targets: Sequence[str | None]) -> dict[int, Pair]:
    """What `scores` takes, of the targets that are known."""
    return {
        i: (prompt.ids, target_ids(lm.tokenizer, prompt, target))
        for i, (prompt, target) in enumerate(zip(prompts, targets, strict=True))
        if target
    }


def _likely(lm: LM, pairs: Mapping[int, Pair], some: Sequence[int]) -> list[float]:
    """How likely the targets of some prompts are; NaN of one that is not known."""
    known = [i for i in some if i in pairs]
    found = dict(zip(known, scores(lm, [pairs[i] for i in known]), strict=True))
    return [math.exp(-found[i].nll) if i in found else math.nan for i in some]


def _asked(done: int, total: int) -> Loading:
    return Loading(stage="probes", done=done, total=total, unit="prompts")


def said_all(lm: LM, requests: Sequence[Request]) -> Generator[Event, None, list[bool]]:
    """Whether each is answered as wanted, decoding no further than it takes to tell: of 96 facts
    on SmolLM2 in 0.3 of the time of `ask_all`."""
    prompts = [lm.prompt(r.prompt, chat=r.chat) for r in requests]
    rooms = [
        len(target_ids(lm.tokenizer, prompt, r.target_new)) + _ROOM
        for prompt, r in zip(prompts, requests, strict=True)
    ]
    order = sorted(range(len(requests)), key=rooms.__getitem__)
    found = [False] * len(requests)
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        texts = lm.answers([prompts[i] for i in some], max_tokens=rooms[some[-1]])
        for i, text in zip(some, texts, strict=True):
            found[i] = took(requests[i], text)
        yield _asked(min(start + BATCH, len(order)), len(order))
    return found


def took(request: Request, answer: str) -> bool:
    """Whether an answer of `ask_all` is the target.

    There is room for more than the target in what is decoded, so that "equals" means it.
    """
    return said(request, answer, ended=True)


# -- the probes that the facts bring with them ----------------------------------------------------

_Probe = tuple[str, Request, str]  # "rephrased" or "neighbours", its fact, the text


def _given(requests: Sequence[Request]) -> list[_Probe]:
    return [
        (kind, request, text)
        for request in requests
        for kind, texts in (("rephrased", request.rephrases), ("neighbours", request.neighbours))
        for text in texts
    ]


def _probe(lm: LM, asked: Sequence[_Probe]) -> Generator[Event, None, list[str]]:
    """What is answered, a batch of prompts at a time."""
    if not asked:
        return []
    yield _asked(0, len(asked))
    prompts = [lm.prompt(t, chat=r.chat) for _, r, t in asked]
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        texts += lm.answers(prompts[start : start + BATCH], max_tokens=TOKENS)
        yield _asked(len(texts), len(prompts))
    return texts


def _compared(asked: Sequence[_Probe], before: Sequence[str], after: Sequence[str]) -> list[Metric]:
    found: dict[str, list[dict[str, Any]]] = {}
    for (kind, request, text), b, a in zip(asked, before, after, strict=True):
        row: dict[str, Any] = {"prompt": text, "before": b, "after": a}
        if kind == "rephrased":
            row |= {"hit": took(request, a)}
        else:
            row |= {"kept": same_head(b, a)}
        found.setdefault(kind, []).append(row)
    metrics = []
    for kind, rows in found.items():
        was = [float(took(r, b)) for (k, r, _), b in zip(asked, before, strict=True) if k == kind]
        good = [float(row["hit" if kind == "rephrased" else "kept"]) for row in rows]
        unedited = mean(was) if kind == "rephrased" else 1.0
        metrics.append(
            Metric(name=kind, before=unedited, after=mean(good), n=len(rows), detail={"rows": rows})
        )
    return metrics


# -- in words ---------------------------------------------------------------------------------


def said_metric(facts: Sequence[Corrected]) -> Metric:
    """The share of the facts that the model answers as wanted, before and after."""
    rows = [
        {
            "prompt": fact.request.prompt,
            "target": fact.request.target_new,
            "before": fact.before.answer,
            "after": fact.after.answer,
            "hit": fact.success,
        }
        for fact in facts
    ]
    share = mean([float(fact.success) for fact in facts])
    was = mean([float(took(fact.request, fact.before.answer)) for fact in facts])
    return Metric(name="said", before=was, after=share, n=len(facts), detail={"rows": rows})


def verdict_of(facts: Sequence[Corrected], done: str = "changed") -> str:
    """In a sentence or two: how many facts took, and which did not."""
    missed = [fact for fact in facts if not fact.success]
    if not missed:
        return f"All {len(facts)} facts {done}."
    names = "; ".join(f"{f.request.prompt!r} gives {f.after.answer!r}" for f in missed[:_SHOWN])
    more = f" and {len(missed) - _SHOWN} more" if len(missed) > _SHOWN else ""
    return f"{len(facts) - len(missed)} of {len(facts)} facts {done}. Not: {names}{more}."
