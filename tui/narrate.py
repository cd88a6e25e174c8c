"""Events in words: the researcher's log.

The one formatter of `edit --verbose`, of the plain prompt and of the full screen's log pane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

from engine.events import (
    EditApplied,
    EditPlanned,
    EditStep,
    EditUndone,
    Event,
    Finding,
    JobEnded,
    Loaded,
    Loading,
    Metric,
    Note,
    Problem,
    ReplyEnded,
)

STAGES = {
    "download": "downloading",
    "convert": "converting the model",
    "weights": "loading the model",
    "statistics": "key statistics",
    "contexts": "writing contexts",
    "prompt": "reading the question",
    "edit": "editing",
    "anchors": "reading other names",
    "probes": "asking the checks",
    "compare": "asking both states",
    "influence": "weighing the edits",
    "live": "asking the edited model",
    "save": "saving the checkpoint",
    "reload": "loading what was saved",
    "merged": "asking what was saved",
    "execute": "doing it again",
    "neurons": "weighing the neurons",
    "trace": "tracing",
    "tune": "tuning",
}
NUMBERS = {
    "denominator": "denominator k*ᵀC⁻¹k*",
    "delta_norm": "‖δ‖",
    "value_before": "value norm before",
    "value_after": "value norm after",
    "key_norm": "‖k*‖",
    "p_new_before": "P(new) before",
    "p_new_after": "P(new) after",
}


@singledispatch
def narrate(event: Event) -> list[str]:
    """The lines of the log that an event is worth; most tokens and progress are worth none."""
    return []


@narrate.register
def _loading(event: Loading) -> list[str]:
    """Where a stage begins and where it ends."""
    if event.done == 0:
        return [STAGES.get(event.stage, event.stage)]
    return [progress(event)] if event.total and event.done >= event.total else []


@narrate.register
def _loaded(event: Loaded) -> list[str]:
    held = event.load_in or event.dtype
    return [
        f"{event.model}: {event.model_type}, {event.layers} layers of {event.width}, "
        f"{held} on {event.device}, {size(event.bytes)}, {event.seconds:.1f} s"
    ]


@narrate.register
def _reply(event: ReplyEnded) -> list[str]:
    return [
        f"answer: {event.text!r} ({event.tokens} tokens, {event.reason}, {event.seconds:.2f} s, "
        f"first after {event.first_token:.2f} s)"
    ]


@narrate.register
def _planned(event: EditPlanned) -> list[str]:
    lines = [
        f"edit {event.edit}: {event.method} at {_sites(event.sites)}",
        f"prompt: {event.prompt!r}",
        f"target: {event.target!r}" + (f", old: {event.old!r}" if event.old else ""),
    ]
    if event.subject is not None:
        lines.append(
            f"subject: {event.subject!r}, last token {event.subject_token!r} "
            f"at position {event.subject_position}"
        )
    lines += [f"context {i}: {text!r}" for i, text in enumerate(event.contexts, start=1)]
    if event.hparams:
        lines.append("hyper-parameters: " + pairs(event.hparams, str))
    return lines


def _sites(names: tuple[str, ...]) -> str:
    """The modules of an edit; those of a whole model are too many for a line."""
    many = len(names) > 8
    return f"{names[0]} … {names[-1]} ({len(names)})" if many else ", ".join(names)


@narrate.register
def _step(event: EditStep) -> list[str]:
    parts = " + ".join(f"{name} {number(value)}" for name, value in event.parts.items())
    old = "" if math.isnan(event.p_old) else f"  P(old) {event.p_old:.4f}"
    return [
        f"step {event.step:>2}/{event.of}  loss {number(event.loss)} = {parts}"
        f"  P(new) {event.p_new:.4f}{old}  ‖δ‖ {number(event.delta_norm)}"
    ]


@narrate.register
def _finding(event: Finding) -> list[str]:
    lines = [f"{event.title}: {event.text}" if event.text else event.title]
    for row in event.rows:
        value = row.get("value")
        lines.append(f"  {row['label']}" + ("" if value is None else f"  {number(value)}"))
    return lines


@narrate.register
def _metric(event: Metric) -> list[str]:
    lines = [f"{event.name}: {number(event.before)} → {number(event.after)} (n = {event.n})"]
    for row in event.detail.get("rows", ()):
        mark = "+" if row.get("hit", row.get("kept")) else "-"
        lines.append(f"  {mark} {row['prompt']!r}: {row['before']!r} → {row['after']!r}")
    return lines


@narrate.register
def _applied(event: EditApplied) -> list[str]:
    named = {NUMBERS[k]: v for k, v in event.numbers.items() if k in NUMBERS}
    lines = [pairs(named, number)] if named else []
    for site in event.sites:
        ratio = float(site.get("norm_ratio", math.nan))
        lines.append(f"update {site['site']}: rank {site.get('rank', '?')}, ‖Δ‖/‖W‖ {ratio:.4g}")
    return [
        *lines,
        "seconds: " + pairs(event.seconds, lambda s: f"{s:.2f}"),
        f"before: {event.answer_before!r}",
        f"after: {event.answer_after!r}",
        event.verdict,
    ]


@narrate.register
def _undone(event: EditUndone) -> list[str]:
    exact = ", exactly" if event.exact else ""
    return [f"{event.action} of {event.edit}{exact}; {count(event.active, 'edit')} active"]


@narrate.register
def _note(event: Note) -> list[str]:
    return [event.text]


@narrate.register
def _problem(event: Problem) -> list[str]:
    return [f"{event.message} {event.remedy}".strip()]


@narrate.register
def _ended(event: JobEnded) -> list[str]:
    memory = f", peak memory +{size(event.peak_memory)}" if event.peak_memory else ""
    return [f"{event.state} in {event.seconds:.1f} s{memory}"]


# -- pieces ------------------------------------------------------------------------------------


def progress(event: Loading) -> str:
    """A stage with how far it is, where that is known."""
    name = STAGES.get(event.stage, event.stage)
    if event.total <= 0:
        return name
    if event.unit == "B":
        return f"{name}: {size(event.done)} of {size(event.total)}"
    return f"{name}: {event.done:.0f} of {event.total:.0f} {event.unit}".rstrip()


def pairs(values: Mapping[str, Any], shown: Callable[[Any], str]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def number(value: float) -> str:
    """Four significant digits; a dash for what was not measured."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def size(amount: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def count(n: int, noun: str) -> str:
    """ "1 edit", "2 edits"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
