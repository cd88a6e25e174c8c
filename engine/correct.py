"""Correcting an answer: measure, edit, measure again, and say in words what came of it.

The same prompts are asked before and after in identical batches, so that they compare. The
edit joins the ledger at the very end: an error or a cancel on the way leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from . import alarms, methods, patches, quantised
from .config import resolve_hparams
from .edit import Edit, new_id
from .errors import BadRequest, UnsupportedModel
from .evaluate.metrics import scores
from .evaluate.normalise import begins_with, equals
from .evaluate.probes import Probes
from .events import EditApplied, EditPlanned, Event, Loading, Metric, Note
from .ledger import Ledger
from .methods import MethodInfo
from .requests import Request
from .tokens import Rendered, target_ids

if TYPE_CHECKING:
    from .lm import LM

MAX_TOKENS = 64  # of the answer that decides about success


@dataclass(frozen=True)
class Answered:
    """The greedy answer, and the probabilities of the new and the old one (NaN: no old one).

    A probability is the geometric mean over the answer's tokens.
    """

    answer: str
    p_new: float
    p_old: float
    ended: bool  # by itself, not at the token limit


@dataclass(frozen=True)
class Corrected:
    """One fact of a correction, and what became of it."""

    request: Request
    before: Answered
    after: Answered
    success: bool


@dataclass(frozen=True)
class Outcome:
    """What a correction did. `layers`: {site, rank, norm_ratio} per patch."""

    edit: Edit
    success: bool
    verdict: str
    facts: tuple[Corrected, ...]
    metrics: tuple[Metric, ...]
    layers: tuple[dict[str, Any], ...]
    seconds: dict[str, float]
    steps: int
    losses: tuple[float, ...]
    versions: dict[str, str]

    @property
    def before(self) -> Answered:
        """Of the first fact."""
        return self.facts[0].before

    @property
    def after(self) -> Answered:
        """Of the first fact."""
        return self.facts[0].after


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
    ledger when this returns. Raises BadRequest (also when the model already answers the
    target), UnknownName, BadSetting, UnsupportedModel, EditFailed.
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
    rivals = ledger.rivals(request)
    old = tuple(rival.id for rival in rivals)
    for rival in rivals:
        yield Note(text=f"supersedes edit {rival.id} (→ {rival.requests[0].target_new!r})")
    with lm.active(ledger.patches(without=old)):
        edit = yield from named(info.run()(lm, [request], hp), edit_id or new_id())
        clock.lap("edit")
    provenance = provenance_of(lm, edit, sources, seed)
    edit = dataclasses.replace(edit, provenance=provenance, supersedes=old)
    with lm.active(Ledger((*ledger.edits, edit)).patches()):
        after = _ask(lm, prompt, request)
        reprobed = (yield from asked.ask(lm)) if asked else None
        now = reprobed.perplexity if reprobed else math.nan
        warnings = alarms.warnings(lm, lm.patches, now)
    clock.lap("probes")
    layers = tuple(layer_of(lm, patch) for patch in edit.patches)
    metrics = [_said(request, before, after)]
    if asked and probed is not None and reprobed is not None:
        metrics += asked.compare(probed, reprobed)
    metrics.append(weight_metric(layers))
    yield from metrics
    outcome = Outcome(
        edit=edit,
        success=_succeeded(request, after),
        verdict=" ".join([_verdict(request, after, metrics), *warnings]),
        facts=(Corrected(request, before, after, _succeeded(request, after)),),
        metrics=tuple(metrics),
        layers=layers,
        seconds=clock.seconds(edit),
        steps=len(edit.numbers.get("losses", ())),
        losses=tuple(edit.numbers.get("losses", ())),
        versions=edit.provenance["versions"],
    )
    yield applied(outcome)
    ledger.apply(edit)  # behind the last event: a job cancelled there has changed nothing
    return outcome


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
    if "seed" in {f.name for f in dataclasses.fields(cls)}:
        given.setdefault("seed", str(seed))
    return resolve_hparams(
        info.name,
        cls,
        model_type=lm.arch.model_type,
        n_layers=lm.n_layers,
        width=lm.width,
        name=lm.name,
        overrides=given,
    )


def _with_old(request: Request, before: Answered) -> Request:
    """The request with the present answer as the old one.

    Raises BadRequest when the model already answers the target.
    """
    if _succeeded(request, before):
        raise BadRequest(f"the target equals the present answer ({before.answer!r}).")
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


def _probability(lm: LM, prompt: Rendered, answer: str | None) -> float:
    if not answer:
        return math.nan
    (score,) = scores(lm, [(prompt.ids, target_ids(lm.tokenizer, prompt, answer))])
    return math.exp(-score.nll)


def named(edit: Generator[Event, None, Edit], edit_id: str) -> Generator[Event, None, Edit]:
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


def provenance_of(lm: LM, edit: Edit, sources: dict[str, str], seed: int) -> dict[str, Any]:
    """What `Edit.provenance` holds, completed by what the method does not know."""
    return {
        **edit.provenance,
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
        **({"load_in": lm.load_in} if lm.load_in else {}),
        "seed": seed,
        "sources": sources,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What a number may depend on besides model, request and settings."""
    return {
        "llm-edit": _version("llm-edit-chat"),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "python": platform.python_version(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return "unknown"


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


def layer_of(lm: LM, patch: patches.Patch) -> dict[str, Any]:
    """{site, rank, norm_ratio} of a patch; the ratio is NaN where the weight cannot be read."""
    return patches.describe(patch, quantised.norm(lm.model.get_submodule(patch.site)))


def weight_metric(layers: tuple[dict[str, Any], ...]) -> Metric:
    """How much the most changed weight changed: max ‖Δ‖/‖W‖."""
    ratios = {layer["site"]: layer["norm_ratio"] for layer in layers}
    return Metric(
        name="weight", before=0.0, after=max(ratios.values(), default=0.0), n=len(ratios),
        detail=ratios,
    )  # fmt: skip


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


def applied(outcome: Outcome) -> EditApplied:
    """The last event of a correction."""
    numbers = {k: float(v) for k, v in outcome.edit.numbers.items() if isinstance(v, (int, float))}
    return EditApplied(
        edit=outcome.edit.id,
        method=outcome.edit.method,
        success=outcome.success,
        verdict=outcome.verdict,
        answer_before=outcome.before.answer,
        answer_after=outcome.after.answer,
        sites=outcome.layers,
        numbers=numbers
        | {"p_new_before": outcome.before.p_new, "p_new_after": outcome.after.p_new},
        seconds=outcome.seconds,
    )


class Clock:
    """Seconds per part."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + now - self._last
        self._last = now

    def seconds(self, edit: Edit) -> dict[str, float]:
        """{total, edit, probes} and what the method itself says of its parts."""
        total = time.perf_counter() - self._began
        return {"total": total, **self._laps, **edit.numbers.get("seconds", {})}
