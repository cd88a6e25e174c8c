"""What an edit came to: how that is told, and kept with it."""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from . import patches, quantised
from .edit import Edit
from .events import EditApplied, Event, Metric
from .ledger import Ledger
from .requests import Request

if TYPE_CHECKING:
    from .lm import LM


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
    """What a correction did.

    layers   {site, rank, norm_ratio} per patch
    already  facts that were asked for, but were answered as wanted before: they were left out
    """

    edit: Edit
    success: bool
    verdict: str
    facts: tuple[Corrected, ...]
    metrics: tuple[Metric, ...]
    layers: tuple[dict[str, Any], ...]
    seconds: dict[str, float]
    already: tuple[Corrected, ...] = ()

    @property
    def losses(self) -> tuple[float, ...]:
        """Per step of the optimisation; empty without one."""
        return tuple(self.edit.numbers.get("losses", ()))

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that made it."""
        versions: dict[str, str] = self.edit.provenance["versions"]
        return versions

    @property
    def before(self) -> Answered:
        """Of the first fact."""
        return self.facts[0].before

    @property
    def after(self) -> Answered:
        """Of the first fact."""
        return self.facts[0].after


def concluded(
    lm: LM,
    ledger: Ledger,
    edit: Edit,
    facts: tuple[Corrected, ...],
    verdict: str,
    metrics: Sequence[Metric],
    clock: Clock,
) -> Generator[Event, None, Outcome]:
    """Tell what came of an edit, and let it join the ledger.

    metrics  but for that of the weights, which is added
    """
    layers = tuple(layer_of(lm, patch) for patch in edit.patches)
    measured = (*metrics, _weight(layers))
    yield from measured
    outcome = Outcome(
        edit=edit,
        success=all(fact.success for fact in facts),
        verdict=verdict,
        facts=facts,
        metrics=measured,
        layers=layers,
        seconds=clock.seconds(edit),
    )
    yield _applied(outcome)
    ledger.apply(edit)  # behind the last event: a job cancelled there has changed nothing
    return outcome


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


def layer_of(lm: LM, patch: patches.Patch) -> dict[str, Any]:
    """{site, rank, norm_ratio} of a patch; the ratio is NaN where the weight cannot be read."""
    return patches.describe(patch, quantised.norm(lm.model.get_submodule(patch.site)))


def _weight(layers: tuple[dict[str, Any], ...]) -> Metric:
    """How much the most changed weight changed: max ‖Δ‖/‖W‖."""
    ratios = {layer["site"]: layer["norm_ratio"] for layer in layers}
    return Metric(
        name="weight", before=0.0, after=max(ratios.values(), default=0.0), n=len(ratios),
        detail=ratios,
    )  # fmt: skip


def _applied(outcome: Outcome) -> EditApplied:
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
