"""The live picture of one correction: loss, probabilities, progress, measurements, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical

from ..edit_state import VERDICTS, EditState
from ..keys import BY_ID, keys_of, shown
from ..texts import clip, visible
from ..views import EditView, Snapshot
from .line import Line
from .line_plot import LinePlot, Series, number
from .metric_cards import MetricCards
from .progress_line import ProgressLine

WELCOME = "No correction yet. Its loss, probabilities and checks are drawn here as they come."
EARLIER = (
    "The next correction is drawn here as it comes. The curves of earlier ones are in "
    "llm-edit replay {session}; {history} shows when they were made, /edits N what came of them."
)

STATES = {
    "applied": "●",
    "superseded": "◐",
    "undone": "○",
    "failed": "✗",
    "cancelled": "■",
    "interrupted": "✗",
}


def loss_series(state: EditState) -> list[Series]:
    return [Series("loss", values=[step.loss for step in state.steps])]


def probability_series(state: EditState) -> list[Series]:
    """P(new) and, where there is an old answer, P(old); the words are the labels."""
    new = Series("P(new)", clip(state.target, 12), [step.p_new for step in state.steps])
    old = Series("P(old)", clip(state.old, 12), [step.p_old for step in state.steps])
    return [new] if all(math.isnan(v) for v in old.values) else [new, old]


def loss_summary(state: EditState) -> str:
    if not state.steps:
        return ""
    text = f"{number(state.steps[0].loss)} → {number(state.steps[-1].loss)}"
    stop = state.stops_at("stop_loss")
    return text if math.isnan(stop) else f"{text} · stop {number(stop)}"


def probability_summary(state: EditState) -> str:
    if not state.steps:
        return ""
    new, old = state.steps[-1].p_new, state.steps[-1].p_old
    text = f"new ● {new:.2f}"
    return text if math.isnan(old) else f"{text}  old ○ {old:.2f}"


def findings_text(state: EditState, width: int) -> Text:
    """What there is to show without a loss: each finding, its rows with bars."""
    text = Text()
    for found in state.findings.values():
        text.append("\n\n" if text else "")
        text.append(f"{visible(found.title)}", "bold")
        text.append(f"  {visible(found.text)}" if found.text else "")
        values = [abs(v) for row in found.rows if (v := row.get("value")) is not None]
        top = max((v for v in values if math.isfinite(v)), default=0.0)
        for row in found.rows:
            text.append(f"\n  {_finding_row(row, top, width - 2)}")
    return text or Text(f"{state.without_curve}: there is no curve to draw.", "dim")


def _finding_row(row: Mapping[str, Any], top: float, width: int) -> str:
    value = row.get("value")
    if value is None:
        return clip(str(row["label"]), width)
    room = max(8, width - 16)
    label = clip(str(row["label"]), room).ljust(min(24, room))
    share = abs(value) / top if top > 0 and math.isfinite(value) else 0.0
    return f"{label} {number(value):>6} {'▪' * round(8 * share)}"


def ledger_text(edits: tuple[EditView, ...], width: int) -> Text:
    """The session's edits, newest last; a mark says whether each is active."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for edit in edits[-8:]:
        mark = STATES.get(edit.state, "◌")
        line = f"{mark} #{edit.number} {edit.subject or clip(edit.question, 20)} → {edit.target}"
        line += f" (superseded by #{edit.superseded_by})" if edit.superseded_by else ""
        style = "strike dim" if edit.state == "undone" else ""
        text.append("\n" if text else "")
        text.append(clip(line, max(10, width)), style)
    return text


class EditPane(Vertical):
    """What is happening to the model; before the first correction, what could."""

    def compose(self) -> ComposeResult:
        with Vertical(id="edit-welcome"):
            yield Line(WELCOME, id="edit-hint")
            yield Line(id="edit-ledger")

    def _live(self) -> Vertical:
        """The picture itself, made for the first correction: the program starts without it."""
        found = self.query("#edit-live")
        if found:
            return found.first(Vertical)
        live = Vertical(id="edit-live")
        self.mount(live)
        live.mount(
            Line(id="edit-question"),
            Line(id="edit-change"),
            Line(id="edit-findings"),
            LinePlot("Loss (log)", log=True, id="loss-plot"),
            LinePlot("Probability", bounds=(0.0, 1.0), id="probability-plot"),
            ProgressLine(id="edit-progress"),
            Line("Did it work?", id="edit-checks"),
            MetricCards(id="edit-cards"),
            Line(id="edit-verdict"),
        )
        return live

    def on_mount(self) -> None:
        self.show(None)

    def show(self, state: EditState | None) -> None:
        """Draw this correction, or the welcome when there is none."""
        self.query_one("#edit-welcome").display = state is None
        self.border_title = "Edit" if state is None else state.title
        if state is None:
            self.query("#edit-live").set(display=False)
            return
        self._live().display = True
        self.query_one("#edit-question", Line).show(visible(state.question))
        self.query_one("#edit-change", Line).show(self._change(state))
        findings = self.query_one("#edit-findings", Line)
        findings.display = bool(state.findings) or not state.optimises
        findings.show(findings_text(state, self.size.width))
        loss = self.query_one("#loss-plot", LinePlot)
        probability = self.query_one("#probability-plot", LinePlot)
        loss.display = probability.display = state.optimises
        steps = len(state.steps) if state.ended or state.applied else 0
        planned = steps or (state.steps[-1].of if state.steps else 0)
        loss.show(
            loss_series(state),
            x_max=planned,
            summary=loss_summary(state),
            threshold=state.stops_at("stop_loss"),
        )
        sure = state.stops_at("stop_probability")
        probability.show(
            probability_series(state),
            x_max=planned,
            summary=probability_summary(state),
            threshold=sure if sure < 1 else math.nan,
        )
        self.query_one(ProgressLine).show(state.share(), state.progress())
        self.query_one(MetricCards).show(state.metrics, over=state.measured)
        self._say(state)

    def show_ledger(self, snapshot: Snapshot) -> None:
        """The session's edits below the welcome (a session that was resumed has some)."""
        self.query_one("#edit-hint", Line).show(self._hint(snapshot))
        ledger = self.query_one("#edit-ledger", Line)
        ledger.display = bool(snapshot.edits)
        ledger.show(ledger_text(snapshot.edits, self.size.width - 4))

    def _hint(self, snapshot: Snapshot) -> str:
        if not snapshot.edits:
            return WELCOME
        from sessions.ids import short  # not for the first picture, which shows no session

        mine: dict[str, str] = getattr(self.app, "my_keys", {})
        history = shown(keys_of(BY_ID["history"], mine))
        return EARLIER.format(session=short(snapshot.session_id), history=history)

    def _change(self, state: EditState) -> Text:
        old, new = state.change
        if not new:  # of many facts
            return Text()
        room = max(8, self.size.width - 4)
        short = clip(old, max(6, room - len(new) - 3)) if old else "…"
        return Text.assemble((short, "dim"), " → ", (clip(new, room), "bold"))

    def _say(self, state: EditState) -> None:
        tone, sentence = state.verdict()
        verdict = self.query_one("#edit-verdict", Line)
        verdict.set_classes(f"-{tone}")
        mark = VERDICTS[tone]
        room = max(40, (self.size.width - 4) * 4 - 8)
        verdict.show(clip(f"{mark}{sentence}", room) if sentence else "")
