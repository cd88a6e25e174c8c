"""Settings for a model: layers first, then the rate, each by successive halving.

One axis after the other: every setting of an axis is tried on a few records, the better half on
twice as many, and so on, until two are left for all n. The settings in force are always one of
them, and win a tie. Rows are kept per setting and record, so that nothing is measured twice.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from torch import Tensor

from ..config import LAYER
from ..correct import method_of
from ..errors import BadInput
from ..evaluate.bootstrap import percentile
from ..evaluate.datasets import Record
from ..evaluate.metrics import Measured, harmonic_mean, mean, measure
from ..events import Event, Loading, Note
from ..lm import LM
from ..methods import get
from . import runner
from .exact import check_undone, fixed_logits
from .results import JsonDict, Results

Setting = Mapping[str, str]  # what differs from the settings in force, as on a command line
POSITIONS = 8  # layers tried
LOOKUP = 0.4  # ... in this share of the depth where the method works at the subject's last token
FACTORS = (0.5, 2.0)  # of the rate in force
LEAST = 5  # records of a round, where there are so many
ONCE = ("download", "convert", "statistics", "contexts")  # stages of an edit that are told
_TOGETHER = 2 << 30  # bytes of statistics that are collected in one pass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to try.

    base    the method, what is fixed, the seed, and the kind of prompts
    layers  positions of the lowest edited layer; empty: spread over the depth
    values  other axes, key -> values as text; where any is given, only what is given is tried
    """

    base: runner.Settings
    layers: tuple[int, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def settings(self, setting: Setting) -> runner.Settings:
        return replace(self.base, overrides={**self.base.overrides, **setting})


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A setting on its first `n` records; what was not measured is NaN.

    said, rephrased  share of records, and of paraphrases, whose greedy continuation is the target
    kept             share of the neighbours' score NS that is left, at most 1; where the data has
                     none, agreement with the unedited model on the neighbours' answers
    score            harmonic mean of these
    seconds          median of an edit
    """

    setting: Setting
    n: int
    failed: int
    said: float
    rephrased: float
    kept: float
    score: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Better is larger; scores of 0 are told apart by the plain mean."""
        return self.score, mean([x for x in self._parts if not math.isnan(x)])

    @property
    def _parts(self) -> tuple[float, ...]:
        return (self.said, self.rephrased, self.kept)


def name(setting: Setting) -> str:
    """A setting in words."""
    return " ".join(f"{key}={value}" for key, value in setting.items()) or "in force"


# -- what is tried --------------------------------------------------------------------------------


def layer_keys(cls: type) -> tuple[str, ...]:
    """The hyper-parameters that are layers, or lists of them."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(key for key, declared in hints.items() if _is_layer(declared))


def _is_layer(declared: Any) -> bool:
    arguments = typing.get_args(declared)
    if typing.get_origin(declared) is Annotated:
        return LAYER in arguments
    return any(_is_layer(argument) for argument in arguments)


def axes(lm: LM, plan: Plan) -> list[tuple[str, list[Setting]]]:
    """What is tried one after the other: (name, settings). Keys that are fixed are left alone.

    Raises BadInput when nothing is left.
    """
    hp = plan.base.hparams(lm)
    found: list[tuple[str, list[Setting]]] = []
    if plan.layers or not plan.values:
        found.append(("layers", _moved(lm, plan, hp)))
    found += [(key, [{key: value} for value in values]) for key, values in plan.values.items()]
    if not plan.values:
        found += _rates(plan, hp)
    found = [(key, settings) for key, settings in found if settings]
    if not found:
        raise BadInput(
            f"{plan.base.method} has no layers and no rate that could be tried here.",
            "Name what to try: --try KEY=VALUE,VALUE.",
        )
    return found


def _moved(lm: LM, plan: Plan, hp: Any) -> list[Setting]:
    """All layers of the method moved together, so that the lowest comes to each position."""
    keys = layer_keys(type(hp))
    now = {key: _listed(getattr(hp, key)) for key in keys}
    every = [layer for layers in now.values() for layer in layers]
    if not every or set(keys) & set(plan.base.overrides):
        if plan.layers:
            raise BadInput(f"the layers of {plan.base.method} are fixed, or it has none.")
        return []
    lowest, highest = min(every), max(every)
    info = get(plan.base.method)
    depth = info.stack(lm.arch).n_layers
    room = depth - 1 - (highest - lowest)
    if plan.layers and not all(0 <= layer <= room for layer in plan.layers):
        raise BadInput(f"the lowest layer must be from 0 to {room} here, not {plan.layers}.")
    top = min(room, round(LOOKUP * depth)) if info.needs_subject else room
    spaced = {round(i * top / (POSITIONS - 1)) for i in range(POSITIONS)}
    return [
        {key: _text([i + to - lowest for i in layers]) for key, layers in now.items() if layers}
        for to in sorted(plan.layers or spaced)
        if to != lowest
    ]


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [] if value is None else [value]


def _text(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))


def _rates(plan: Plan, hp: Any) -> list[tuple[str, list[Setting]]]:
    """Around the rate in force; a rate relative to the model's activations where that is used."""
    key = "lr" if getattr(hp, "lr", None) is not None else "relative_lr"
    if not hasattr(hp, key) or {"lr", "relative_lr"} & set(plan.base.overrides):
        return []
    return [(key, [{key: f"{factor * getattr(hp, key):.6g}"} for factor in FACTORS])]


def rounds(settings: int, n: int) -> list[tuple[int, int]]:
    """Successive halving as (settings, records): 9 of them and n = 50 are
    (9, 7), (5, 13), (3, 25), (2, 50)."""
    number = max(1, math.ceil(math.log2(settings)))
    found: list[tuple[int, int]] = []
    for left in reversed(range(number)):
        records = max(min(n, LEAST), math.ceil(n / 2**left))
        if not found or records > found[-1][1]:
            found.append((settings, records))
        settings = max(2, math.ceil(settings / 2))
    return found


# -- trying ---------------------------------------------------------------------------------------


def run(
    lm: LM, records: Sequence[Record], plan: Plan, results: Results
) -> Generator[Event, None, list[Tried]]:
    """Every setting that was tried, best first: those on all the records lead.

    The first record's edit of a setting pays for what is made once a layer; the median hides it.
    Yields Loading(stage="tune") per edit, and Notes; raises BadInput, BadSetting, UndoNotExact.
    """
    if not records:
        raise BadInput("there are no records to try.", "--n must be at least 1.")
    method_of(lm, records[0].request, plan.base.method)
    every = axes(lm, plan)
    trial = _Trial(lm, records, plan, results)
    best: Setting = {}
    tried: dict[str, Tried] = {}
    for axis, values in every:
        settings: list[Setting] = [best, *({**best, **value} for value in values)]
        settings = trial.different(settings)
        if len(settings) > 1:
            yield from trial.collect(settings)
            found = yield from _halved(trial, axis, settings)
            tried |= {name(t.setting): t for t in found}
            best = found[0].setting
    if not tried:
        raise BadInput("all settings to try are the one in force.", "Name others: --try.")
    return sorted(tried.values(), key=lambda t: (t.n, t.rank), reverse=True)


def _halved(
    trial: _Trial, axis: str, settings: Sequence[Setting]
) -> Generator[Event, None, list[Tried]]:
    """Best first; the first of `settings` stays to the end, and wins a tie."""
    base = settings[0]
    last: dict[str, Tried] = {}
    plan = rounds(len(settings), len(trial.records))
    starts = [0, *(n for _, n in plan)]
    trial.done = 0
    trial.total = sum(k * (n - m) for (k, n), m in zip(plan, starts, strict=False))
    for (keep, n), start in zip(plan, starts, strict=False):
        ranked = sorted(last.values(), key=lambda t: (t.n, t.rank), reverse=True)  # n: still going
        going = [t.setting for t in ranked[:keep]] or list(settings)
        if base not in going:
            going[-1] = base
        yield Note(text=f"{axis}: {len(going)} settings on {n} records each")
        for setting in sorted(going, key=list(settings).index):
            yield from trial.measure(setting, start, n)
            last[name(setting)] = trial.told(setting, n)
    return sorted(last.values(), key=lambda t: (t.n, t.rank), reverse=True)


class _Trial:
    """The records, the model, and what was measured of them so far."""

    def __init__(self, lm: LM, records: Sequence[Record], plan: Plan, results: Results) -> None:
        self.lm, self.plan, self.results = lm, plan, results
        chat = plan.base.chat
        self.records = [replace(r, request=replace(r.request, chat=chat).check()) for r in records]
        self.done = self.total = 0  # edits of the axis
        self._before: dict[str, Measured] = {}
        self._fresh: Tensor | None = None

    def different(self, settings: Sequence[Setting]) -> list[Setting]:
        """Those that do not come to the same hyper-parameters. Raises BadSetting."""
        found: dict[str, Setting] = {}
        for setting in settings:
            hp = self.plan.settings(setting).hparams(self.lm)
            found.setdefault(repr(hp), setting)
        return list(found.values())

    def collect(self, settings: Sequence[Setting]) -> Generator[Event, None, None]:
        """Statistics of all layers in one pass over the text, where they fit into memory."""
        hps = [self.plan.settings(setting).hparams(self.lm) for setting in settings]
        if not hasattr(hps[0], "tokens"):
            return
        lists = (getattr(hp, "layers", None) or _listed(getattr(hp, "layer", None)) for hp in hps)
        layers = sorted({layer for found in lists for layer in found})
        if self._fits(len(layers)):
            text, tokens = hps[0].text, hps[0].tokens
            yield from self.lm.statistics.moments(layers, text=text, tokens=tokens)

    def _fits(self, layers: int) -> bool:
        return bool(layers * 8 * self.lm.arch.mlp_width**2 <= _TOGETHER)

    def _has(self, setting: Setting, record: Record) -> bool:
        return _key(setting, record) in self.results.rows

    def measure(self, setting: Setting, start: int, n: int) -> Generator[Event, None, None]:
        """Edit, measure and undo the records from `start` to `n` that have no row yet.

        Raises UndoNotExact.
        """
        todo = [r for r in self.records[start:n] if not self._has(setting, r)]
        self.done += n - start - len(todo)
        if not todo:
            return
        if self._fresh is None:
            self._fresh = fixed_logits(self.lm)
        settings = self.plan.settings(setting)
        hp = settings.hparams(self.lm)
        row: JsonDict = {}
        for record in todo:
            if record.id not in self._before:
                self._before[record.id] = measure(self.lm, record)
            before = self._before[record.id]
            job = runner.edited(self.lm, record, settings.method, hp, before)
            row = yield from _quietly(job)
            row.pop("texts")
            self.results.add(_key(setting, record), {"setting": dict(setting), **row})
            self.done += 1
            yield Loading(stage="tune", done=self.done, total=self.total, unit="edits")
        check_undone(self.lm, self._fresh, row["edit"])
        if not self._fits(self.lm.n_layers):
            self.lm.statistics.release()

    def told(self, setting: Setting, n: int) -> Tried:
        rows = [self.results.rows[_key(setting, r)] for r in self.records[:n]]
        return judged(setting, rows)


def _key(setting: Setting, record: Record) -> str:
    return f"{name(setting)} | {record.id}"


def _quietly(job: Generator[Event, None, JsonDict]) -> Generator[Event, None, JsonDict]:
    """An edit of which only what is made once and may take long is told."""
    while True:
        try:
            event = next(job)
        except StopIteration as stop:
            row: JsonDict = stop.value
            return row
        if isinstance(event, Loading) and event.stage in ONCE:
            yield event


def judged(setting: Setting, rows: Sequence[JsonDict]) -> Tried:
    """What the rows of a setting come to."""
    said, rephrased = _mean(rows, "said", "after"), _mean(rows, "rephrased", "after")
    had = _mean(rows, "NS", "before")
    kept = min(1.0, _mean(rows, "NS", "after") / had) if had > 0 else _mean(rows, "loc", "after")
    parts = [x for x in (said, rephrased, kept) if not math.isnan(x)]
    times = [row["seconds"]["total"] for row in rows if not row["error"]]
    return Tried(
        setting=setting,
        n=len(rows),
        failed=sum(bool(row["error"]) for row in rows),
        said=said,
        rephrased=rephrased,
        kept=kept,
        score=harmonic_mean(parts),
        seconds=percentile(times, 0.5),
    )


def _mean(rows: Sequence[JsonDict], metric: str, side: str) -> float:
    values = (row["metrics"].get(metric, {}).get(side) for row in rows)
    return mean([float(value) for value in values if value is not None])
