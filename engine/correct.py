"""Correcting an answer: measure, edit, measure again, and say in words what came of it.

The same prompts are asked before and after in identical batches, so that they compare. The
edit joins the ledger at the very end: an error or a cancel on the way leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import alarms, methods, quantised
from .config import resolve_hparams
from .edit import Edit, new_id
from .errors import AlreadySaid, BadRequest, UnsupportedModel
from .evaluate.metrics import scores
from .evaluate.normalise import begins_with, equals
from .evaluate.probes import Probes
from .events import EditPlanned, Event, Loading, Metric, Note
from .ledger import Ledger
from .methods import MethodInfo
from .outcome import Answered, Clock, Corrected, Outcome, concluded, provenance_of
from .requests import Request
from .tokens import Rendered, target_ids

if TYPE_CHECKING:
    from .lm import LM
    from .patches import Patch

MAX_TOKENS = 64  # of the answer that decides about success


def correct(
    lm: LM,
    ledger: Ledger,
    request: Request,
    *,
    method: str,
    overrides: Mapping[str, str] | None = None,
    probes: bool = True,
    seed: int = 0,
    edit_id: str = "",
) -> Generator[Event, None, Outcome]:
    """Edit one fact into the model on top of the ledger's edits, and judge it.

    An earlier edit of the same question is superseded: the new one is computed as if it were
    not there, and it does not act while the new one stands.

    overrides  hyper-parameters that replace the resolved ones, as texts
    probes     ask rephrasings, neighbours and held-out text too
    Yields Loading, EditPlanned, EditStep, Note, Metric and EditApplied. The edit is in the
    ledger when this returns. Raises BadRequest, AlreadySaid (the model answers the target
    already), UnknownName, BadSetting, UnsupportedModel, EditFailed.
    """
    clock = Clock()
    request = request.check()
    info = method_of(lm, request, method)
    hp, sources = hparams_of(lm, info, overrides or {}, seed)
    prompt = lm.prompt(request.prompt, chat=request.chat)
    yield Loading(stage="probes", done=0, total=0)  # say that it has begun
    with lm.active(ledger.patches()):
        before = _ask(lm, prompt, request)
        request = _with_old(request, before)
        before = dataclasses.replace(before, p_old=_probability(lm, prompt, request.target_old))
        asked = Probes.build(lm, request) if probes else None
        probed = (yield from asked.ask(lm)) if asked else None
        clock.lap("probes")
    edit = yield from made(lm, ledger, info, [request], hp, edit_id or new_id())
    clock.lap("edit")
    edit = dataclasses.replace(edit, provenance=provenance_of(lm, edit, sources, seed))
    with lm.active(Ledger((*ledger.edits, edit)).patches()):
        after = _ask(lm, prompt, request)
        there = _in_conversation(lm, request)
        reprobed = (yield from asked.ask(lm)) if asked else None
        now = reprobed.perplexity if reprobed else math.nan
        warnings = alarms.warnings(lm, lm.patches, now)
    clock.lap("probes")
    metrics = [_said(request, before, after)]
    if asked and probed is not None and reprobed is not None:
        metrics += asked.compare(probed, reprobed)
    facts = (Corrected(request, before, after, _succeeded(request, after)),)
    told = [_verdict(request, after, metrics), *_elsewhere(request, after, there), *warnings]
    verdict = " ".join(told)
    return (yield from concluded(lm, ledger, edit, facts, verdict, metrics, clock))


def made(
    lm: LM, ledger: Ledger, info: MethodInfo, requests: Sequence[Request], hp: Any, edit_id: str
) -> Generator[Event, None, Edit]:
    """The method's own run, as if there were no earlier edits of the same questions: it
    supersedes them."""
    rivals, patches = beneath(ledger, requests)
    for rival in rivals:
        yield Note(text=f"supersedes edit {rival.id} (→ {rival.requests[0].target_new!r})")
    if lm.arch.model_type in info.experimental:
        yield Note(text=f"{info.name} is experimental on {lm.arch.model_type!r} models")
    with lm.active(patches):
        edit = yield from _named(info.run()(lm, requests, hp), edit_id)
    return dataclasses.replace(edit, supersedes=tuple(rival.id for rival in rivals))


def beneath(
    ledger: Ledger, requests: Sequence[Request]
) -> tuple[tuple[Edit, ...], tuple[Patch, ...]]:
    """The edits that a new one of these facts supersedes, and the patches that it comes on top of.

    A batch that answers one of them, among others, goes on acting, and holds that one no more.
    """
    rivals = {rival.id: rival for request in requests for rival in ledger.rivals(request)}
    asked = {request.key() for request in requests}
    below = (edit for edit in ledger.acting if edit.id not in rivals)
    return tuple(rivals.values()), tuple(p for edit in below for p in edit.releasing(asked))


# -- before -------------------------------------------------------------------------------------


def method_of(lm: LM, request: Request, name: str) -> MethodInfo:
    """The method, where it can edit this. Raises UnknownName, UnsupportedModel, BadRequest."""
    info = methods.get(name)
    if lm.arch.model_type not in info.families:
        raise UnsupportedModel(
            f"{name} does not edit {lm.arch.model_type!r} models.",
            f"It edits: {', '.join(sorted(info.families))}.",
        )
    if info.dense and quantised.is_quantised(lm.model):
        raise UnsupportedModel(
            f"{name} trains a dense matrix, and the weights of {lm.name} are quantised.",
            "Take a method whose update is low-rank (lora, r-rome, memit ...), or load the model "
            "without --load-in.",
        )
    if info.needs_subject and request.subject is None:
        raise BadRequest(f"{name} needs the subject of the prompt.", "Name it: --subject ...")
    return info


def hparams_of(
    lm: LM, info: MethodInfo, overrides: Mapping[str, str], seed: int
) -> tuple[Any, dict[str, str]]:
    """Its hyper-parameters, and per key where each came from. Raises BadSetting, BadFile."""
    cls = info.params_class()
    given = dict(overrides)
    stack = info.stack(lm.arch)
    if "seed" in {f.name for f in dataclasses.fields(cls)}:
        given.setdefault("seed", str(seed))
    return resolve_hparams(
        info.name,
        cls,
        model_type=lm.arch.model_type,
        n_layers=stack.n_layers,
        width=stack.width,
        mlp_width=stack.mlp_width,
        name=lm.name,
        overrides=given,
    )


def _with_old(request: Request, before: Answered) -> Request:
    """The request with the present answer as the old one.

    Raises AlreadySaid when that is the target.
    """
    if _succeeded(request, before):
        raise AlreadySaid(f"the target equals the present answer ({before.answer!r}).")
    if request.target_old or not before.answer:
        return request
    return dataclasses.replace(request, target_old=before.answer)


def _ask(lm: LM, prompt: Rendered, request: Request) -> Answered:
    reply = lm.reply(prompt, MAX_TOKENS)
    return Answered(
        answer=reply.text,
        p_new=_probability(lm, prompt, request.target_new),
        p_old=_probability(lm, prompt, request.target_old),
        ended=reply.reason == "stop",
    )


def _in_conversation(lm: LM, request: Request) -> Answered | None:
    """The answer behind the turns that the question was asked after, where there are any."""
    if not (request.chat and request.history) or lm.encoder_decoder:
        return None
    return _ask(lm, lm.render(request.prompt, request.history), request)


def _probability(lm: LM, prompt: Rendered, answer: str | None) -> float:
    if not answer:
        return math.nan
    (score,) = scores(lm, [(prompt.ids, target_ids(lm.tokenizer, prompt, answer))])
    return math.exp(-score.nll)


def _named(edit: Generator[Event, None, Edit], edit_id: str) -> Generator[Event, None, Edit]:
    """The method's own run, under the id that the edit will have."""
    try:
        while True:
            event = next(edit)
            yield (
                dataclasses.replace(event, edit=edit_id)
                if isinstance(event, EditPlanned)
                else event
            )
    except StopIteration as stop:
        made: Edit = stop.value
        return dataclasses.replace(made, id=edit_id)
    finally:
        edit.close()


# -- after --------------------------------------------------------------------------------------


def said(request: Request, answer: str, ended: bool) -> bool:
    """By free decoding: a chat answer is the target and ends; a statement begins with it."""
    if request.chat:
        return ended and equals(answer, request.target_new)
    return begins_with(answer, request.target_new)


def _succeeded(request: Request, answered: Answered) -> bool:
    return said(request, answered.answer, answered.ended)


def _said(request: Request, before: Answered, after: Answered) -> Metric:
    return Metric(
        name="said",
        before=0.0,
        after=float(_succeeded(request, after)),
        n=1,
        detail={
            "answer_before": before.answer,
            "answer_after": after.answer,
            "target": request.target_new,
            "p_new_before": before.p_new,
            "p_new_after": after.p_new,
        },
    )


def _elsewhere(request: Request, alone: Answered, there: Answered | None) -> list[str]:
    """A sentence where the edit took alone and not in the conversation, or the other way round."""
    if there is None or _succeeded(request, alone) == _succeeded(request, there):
        return []
    return [f"That is asked alone: in this conversation it says {there.answer!r}."]


def _verdict(request: Request, after: Answered, metrics: list[Metric]) -> str:
    """The outcome in one or two sentences."""
    if not _succeeded(request, after):
        return (
            f"Not changed: the model says {after.answer!r}, not {request.target_new!r} "
            f"(P(new) {after.p_new:.2f}). Try another method, or name another subject."
        )
    neighbours = next((m for m in metrics if m.name == "neighbours"), None)
    if neighbours is None:
        return f"Changed: the model now says {after.answer!r}."
    moved = [row for row in neighbours.detail.get("rows", ()) if not row["kept"]]
    if not moved:
        return f"Changed and kept: {neighbours.n} of {neighbours.n} neighbours answer as before."
    first = moved[0]
    return (
        f"Changed, but {len(moved)} of {neighbours.n} neighbours moved: "
        f"{first['prompt']!r} now gives {first['after']!r} (before: {first['before']!r})."
    )
