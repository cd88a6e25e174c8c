"""What the edit panes show: the events of one correction, folded into a state.

Everything follows from the events (times included), so a replay draws the same picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from engine.events import (
    EditApplied,
    EditPlanned,
    EditStep,
    Event,
    Finding,
    JobEnded,
    Loading,
    Metric,
    Problem,
)

from .narrate import STAGES
from .pace import Pace

VERDICTS = {"good": "✓ ", "partly": "◐ ", "bad": "✗ ", "muted": "■ ", "busy": ""}
METRICS = ("said", "rephrased", "neighbours", "fluency", "weight")


@dataclass
class EditState:
    """One correction, from its first event to its end.

    number    in the session; 0 until it is known
    ended     "" while it runs, then "done", "failed", "cancelled"
    stands    the edit is in the ledger, whatever became of the question that was asked again
    undone    the edit was taken off again afterwards
    """

    question: str = ""
    target: str = ""
    method: str = ""
    number: int = 0
    old: str = ""
    stage: Loading | None = None
    planned: EditPlanned | None = None
    steps: list[EditStep] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    applied: EditApplied | None = None
    problem: Problem | None = None
    ended: str = ""
    stands: bool = False
    undone: bool = False
    seconds: float = 0.0
    pace: Pace = field(default_factory=Pace, repr=False, compare=False)

    def feed(self, event: Event) -> None:
        """Take in the next event of the job."""
        if isinstance(event, (EditStep, Loading)):
            self.pace.feed(event, event.t)
        if isinstance(event, EditStep):
            self.steps.append(event)
            self.stage = None
        elif isinstance(event, Loading):
            self.stage = event
        elif isinstance(event, EditPlanned):
            self.planned, self.stage = event, None
            self.old = event.old or self.old
        elif isinstance(event, Finding):
            self.findings[event.name] = event
        elif isinstance(event, Metric):
            self.metrics[event.name] = event
        elif isinstance(event, EditApplied):
            self.applied = event
            self.old = self.old or event.answer_before
        elif isinstance(event, Problem):
            self.problem = event
        elif isinstance(event, JobEnded):
            self.ended, self.seconds, self.stage = event.state, event.seconds, None

    @property
    def running(self) -> bool:
        return not self.ended

    @property
    def measured(self) -> bool:
        """Whether a measurement that is not there now was not made at all."""
        return bool(self.ended) and (self.applied is not None or not self.stands)

    @property
    def optimises(self) -> bool:
        """Whether there is, or may still be, a loss to draw."""
        nothing = self.planned is not None and self.planned.steps == 0
        over = bool(self.ended or self.applied or self.findings)
        return bool(self.steps) or not (nothing or over)

    @property
    def without_curve(self) -> str:
        """Why there is no loss to draw, where `optimises` says so."""
        if self.planned is not None and self.planned.steps == 0:
            return "This method optimises nothing"
        if not self.stands and self.ended in ("cancelled", "failed"):
            return "It ended before its first step"
        return "Its steps were not recorded"

    def stops_at(self, name: str) -> float:
        """A hyper-parameter at which the optimisation ends early; NaN where there is none."""
        value = self.planned.hparams.get(name) if self.planned else None
        return float(value) if isinstance(value, (int, float)) else math.nan

    @property
    def layer(self) -> str:
        """The edited layer or layers, "" before they are known."""
        found = [layer_of(site) for site in self.planned.sites] if self.planned else []
        names = list(dict.fromkeys(name for name in found if name))
        if not names:
            return ""
        return f"layer {names[0]}" if len(names) == 1 else f"layers {names[0]}–{names[-1]}"

    @property
    def title(self) -> str:
        number = f"Edit {self.number}" if self.number else "Edit"
        parts = [number, self.method, self.layer]
        return " · ".join(part for part in parts if part)

    @property
    def change(self) -> tuple[str, str]:
        """The old answer and the new one."""
        return self.old, self.target

    def share(self) -> float:
        """How much of the present stage, or of the optimisation, is done: 0 to 1."""
        if self.stands or self.applied:
            return 1.0
        if self.stage is not None:
            return min(1.0, self.stage.done / self.stage.total) if self.stage.total > 0 else 0.0
        if not self.steps:
            return 0.0
        return min(1.0, self.steps[-1].step / max(1, self.steps[-1].of))

    def progress(self) -> str:
        """One short line: what happens now, or how it ended."""
        steps = f"{len(self.steps)} steps" if self.steps else "done"
        if self.stands:
            return f"{steps} · {self.seconds:.1f} s"
        if self.ended:
            after = f" after {len(self.steps)} steps" if self.steps else ""
            return f"{self.ended}{after} · {self.seconds:.1f} s"
        if self.applied:
            return f"{steps} · asking again" if self.steps else "asking again"
        if not self.steps and not self.stage:
            return "getting ready"
        left = self.pace.left()
        eta = "" if math.isnan(left) else f" · {left:.{left < 10:d}f} s left"
        if self.stage:
            return stage_text(self.stage) + eta
        return f"step {self.steps[-1].step}/{self.steps[-1].of}{eta}"

    def verdict(self) -> tuple[str, str]:
        """(tone, sentence); VERDICTS has the tones. An edit that moved a neighbour is "partly"."""
        if self.undone:
            return "muted", "Undone: the model answers as before this edit."
        if self.ended == "failed" and self.problem:
            return "bad", f"{self.problem.message} {self.problem.remedy}".strip()
        if self.ended == "cancelled" and not self.stands:
            return "muted", "Stopped. Nothing was changed."
        if self.applied:
            if not self.applied.success:
                return "bad", self.applied.verdict
            kept = self.metrics.get("neighbours")
            moved = kept is not None and kept.n > 0 and kept.after < 1
            return ("partly" if moved else "good"), self.applied.verdict
        return "busy", ""


def layer_of(site: str) -> str:
    """The layer's number in a module name: "model.layers.6.mlp.down_proj" -> "6"."""
    return next((part for part in site.split(".") if part.isdigit()), "")


def stage_text(stage: Loading) -> str:
    """A stage in words, with how far it is where that is known."""
    name = STAGES.get(stage.stage, stage.stage)
    if stage.total <= 0:
        return name
    if stage.unit == "B":
        return f"{name} {stage.done / 1e6:.0f}/{stage.total / 1e6:.0f} MB"
    if stage.total >= 10_000:
        return f"{name} {100 * stage.done / stage.total:.0f} %"
    return f"{name} {stage.done:.0f}/{stage.total:.0f}"
