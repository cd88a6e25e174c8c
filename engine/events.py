"""What the engine says while it works: frozen, torch-free, JSON both ways.

A job yields these; the worker stamps `job`, `seq` and `t` (seconds since the job's start).
Every front end, the recorder and replay read the same events.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1

JsonDict = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; `kind` is the class name."""

    job: str = ""
    seq: int = 0
    t: float = 0.0

    @property
    def kind(self) -> str:
        return type(self).__name__

    def to_json(self) -> JsonDict:
        """A JSON-safe dict. NaN and infinities become strings, never null."""
        body = {f.name: _encode(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"kind": self.kind, "v": SCHEMA, **body}


@dataclass(frozen=True, kw_only=True)
class Loading(Event):
    """Progress of something long: a download, the weights, the statistics."""

    stage: str  # "download", "convert", "weights", "statistics", "prompt", "probes" ...
    done: float
    total: float  # 0 when unknown
    unit: str = ""  # "B", "tensors", "tokens", ...


@dataclass(frozen=True, kw_only=True)
class Loaded(Event):
    """A model is ready."""

    model: str
    source: str
    model_type: str
    layers: int
    width: int
    dtype: str
    device: str
    chat: bool  # has a chat template
    fingerprint: str
    seconds: float
    bytes: int = 0  # size of the parameters in memory
    load_in: str = ""  # "4bit" or "8bit" where the weights are quantised


@dataclass(frozen=True, kw_only=True)
class Token(Event):
    """A piece of the reply's text (not always one token: never half a character)."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReplyEnded(Event):
    text: str
    tokens: int
    reason: str  # "stop", "length", "cancelled"
    seconds: float
    first_token: float  # seconds to the first token
    temperature: float = 0.0  # 0 is greedy
    seed: int = 0  # of the sampling


@dataclass(frozen=True, kw_only=True)
class EditPlanned(Event):
    """What is about to be edited, before anything is computed."""

    edit: str
    method: str
    prompt: str  # the text as the model sees it
    subject: str | None
    target: str  # the text that is optimised, end-of-turn token included
    old: str | None
    sites: tuple[str, ...]
    steps: int
    subject_token: str = ""
    subject_position: int = -1
    contexts: tuple[str, ...] = ()
    hparams: JsonDict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EditStep(Event):
    step: int  # 1-based
    of: int  # as many as are to be expected now: a fact that is not said may be given more
    loss: float
    parts: dict[str, float]  # "nll", "kl", "decay", ...: sum is the loss
    p_new: float  # mean over contexts of the target's probability (geometric over its tokens)
    p_old: float  # mean probability of the old answer's first token; NaN when there is none
    delta_norm: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Finding(Event):
    """What a method found on its way: neurons, how near a question is, facts it looked up.

    For methods that have no loss to draw, or have more to show than one.
    """

    name: str  # "neurons", "scope", "facts", ...: a later one of the same name replaces it
    title: str  # "Neurons found"
    text: str = ""  # "12 in layers 8-11"
    rows: tuple[JsonDict, ...] = ()  # {label, value}: value a number, or None where there is none


@dataclass(frozen=True, kw_only=True)
class Metric(Event):
    """One measurement, before and after. A number that was not measured is NaN."""

    name: str  # "said", "rephrased", "neighbours", "fluency", "weight"
    before: float
    after: float
    n: int
    detail: JsonDict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EditApplied(Event):
    edit: str
    method: str
    success: bool
    verdict: str  # in words
    answer_before: str
    answer_after: str
    sites: tuple[JsonDict, ...]  # {site, rank, norm_ratio}
    numbers: dict[str, float] = field(default_factory=dict)  # "denominator", "value_before", ...
    seconds: dict[str, float] = field(default_factory=dict)  # total, setup, optimise, solve, probes


@dataclass(frozen=True, kw_only=True)
class EditUndone(Event):
    edit: str
    action: str  # "undo", "redo", "drop"
    active: int  # edits active afterwards
    ledger: str  # fingerprint of the ledger afterwards
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A line of the researcher's log."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Problem(Event):
    error: str  # name of the error class
    message: str
    remedy: str = ""
    exit_code: int = 1


@dataclass(frozen=True, kw_only=True)
class JobEnded(Event):
    state: str  # "done", "failed", "cancelled"
    seconds: float
    peak_memory: int = 0  # bytes above what was in use at the job's start


KINDS: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        Loading, Loaded, Token, ReplyEnded, EditPlanned, EditStep, Finding, Metric,
        EditApplied, EditUndone, Note, Problem, JobEnded,
    )
}  # fmt: skip


def from_json(data: JsonDict) -> Event:
    """The event that `to_json` wrote.

    Raises ValueError for an unknown kind or a newer schema.
    """
    if data.get("v", SCHEMA) > SCHEMA:
        raise ValueError(f"event schema {data['v']} is newer than {SCHEMA}")
    try:
        cls = KINDS[data["kind"]]
    except KeyError:
        raise ValueError(f"unknown event kind {data.get('kind')!r}") from None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {k: _decode(v) for k, v in data.items() if k in fields}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return cls(**values)


_NUMBERS: dict[str, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"float"} and value["float"] in _NUMBERS:
            return _NUMBERS[value["float"]]
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_decode(v) for v in value]
    return value
