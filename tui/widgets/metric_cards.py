"""Did it work? One row for each measurement, before → after, with how many samples it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from engine.events import Metric

from ..edit_state import METRICS, layer_of
from ..texts import clip
from .bound import bindings

FEW = 5  # with fewer samples a percentage would claim too much
TITLES = {
    "said": "Said it",
    "rephrased": "Rephrased",
    "neighbours": "Neighbours kept",
    "fluency": "Fluency",
    "weight": "Weight change",
}
SHORT = {"neighbours": "Neighbours", "weight": "Weight"}
MARKS = {"good": "✓", "partly": "◐", "bad": "✗", "muted": "·"}


@dataclass(frozen=True)
class Card:
    """What one measurement says: a tone, its words, and fewer words for a narrow place."""

    title: str
    tone: str = "muted"
    value: str = ""
    short: str = ""

    @property
    def mark(self) -> str:
        return MARKS[self.tone]


def card(name: str, metric: Metric | None, *, over: bool = False) -> Card:
    """The card of a measurement; an empty one while it has not been made and may still be.

    over  no more measurements will come
    """
    title = TITLES.get(name, name)
    if metric is None and not over:
        return Card(title)
    if metric is None or math.isnan(metric.after) or metric.n == 0:
        return Card(title, value="not measured", short="–")
    build = {
        "said": _said,
        "rephrased": _rephrased,
        "neighbours": _neighbours,
        "fluency": _fluency,
        "weight": _weight,
    }.get(name)
    if build is None:
        return Card(title, value=f"{metric.before:.3g} → {metric.after:.3g}")
    return build(title, metric)


def share(value: float, n: int) -> str:
    """A share of `n`: the count alone when it rests on few samples."""
    if math.isnan(value):
        return "–"
    hits = round(value * n)
    return f"{hits}/{n}" if n < FEW else f"{100 * value:.0f} % ({hits}/{n})"


def _said(title: str, metric: Metric) -> Card:
    good = metric.after >= 1
    answer = str(metric.detail.get("answer_after") or "")
    before = "yes" if metric.before >= 1 else "no"
    value = f"{before} → {'yes' if good else 'no'}"
    if answer and not good:
        value = f"no: “{answer}”"
    return Card(title, "good" if good else "bad", value, "yes" if good else "no")


def _rephrased(title: str, metric: Metric) -> Card:
    tone = "good" if metric.after >= 1 else "partly" if metric.after > 0 else "bad"
    value = share(metric.after, metric.n)
    if not math.isnan(metric.before):
        value = f"{round(metric.before * metric.n)}/{metric.n} → {value}"
    return Card(title, tone, value, f"{round(metric.after * metric.n)}/{metric.n}")


def _neighbours(title: str, metric: Metric) -> Card:
    tone = "good" if metric.after >= 1 else "partly" if metric.after >= 0.8 else "bad"
    short = f"{round(metric.after * metric.n)}/{metric.n}"
    return Card(title, tone, share(metric.after, metric.n), short)


def _fluency(title: str, metric: Metric) -> Card:
    """Perplexity of fixed text: lower is better; a few percent is noise."""
    change = metric.after / metric.before - 1 if metric.before else math.nan
    if math.isnan(change):
        return Card(title, value=f"perplexity {metric.after:.1f}", short=f"{metric.after:.1f}")
    tone = "good" if change < 0.1 else "partly" if change < 0.5 else "bad"
    moved = f"{100 * change:+.1f} %"
    return Card(title, tone, f"{metric.before:.1f} → {metric.after:.1f} ({moved})", moved)


def _weight(title: str, metric: Metric) -> Card:
    amount = f"{100 * metric.after:.2g} %"
    sites = [layer_of(site) for site in metric.detail]
    layers = ", ".join(dict.fromkeys(site for site in sites if site))
    return Card(title, "muted", f"{amount} at layer {layers}" if layers else amount, amount)


class MetricCards(Widget, can_focus=True):
    """The measurements, one row each; one is chosen while they have the focus."""

    HELP = "What was measured before and after the edit. Enter shows the single answers."
    PLACE = "checks"
    BINDINGS: ClassVar = bindings("checks")

    class Opened(Message):
        """The chosen measurement is to be shown in full."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    COMPONENT_CLASSES: ClassVar = {
        "metric-cards--title",
        "metric-cards--good",
        "metric-cards--partly",
        "metric-cards--bad",
        "metric-cards--muted",
        "metric-cards--value",
    }
    ALLOW_SELECT = False
    WIDEST = max(len(title) for title in TITLES.values())

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cards = [card(name, None) for name in METRICS]
        self.cursor = 0

    def action_cursor(self, step: int) -> None:
        self.cursor = min(max(self.cursor + step, 0), len(self.cards) - 1)
        self.refresh()

    def action_open(self) -> None:
        self.post_message(self.Opened(METRICS[self.cursor]))

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        if place is not None and place.y < len(self.cards):
            self.cursor = place.y
            self.action_open()

    def show(self, metrics: Mapping[str, Metric], *, over: bool = False) -> None:
        """Show these measurements; those that are missing stay blank until it is `over`."""
        cards = [card(name, metrics.get(name), over=over) for name in METRICS]
        if cards != self.cards:
            self.cards = cards
            self.refresh()

    def render(self) -> Text:
        rows = [self._row(each, self.size.width) for each in self.cards]
        if self.has_focus:
            rows[self.cursor].stylize("reverse")
        return Text("\n", no_wrap=True, overflow="ellipsis").join(rows)

    def _row(self, each: Card, width: int) -> Text:
        row = Text(no_wrap=True, overflow="ellipsis")
        row.append(f"{each.mark} ", self.get_component_rich_style(f"metric-cards--{each.tone}"))
        row.append(each.title.ljust(self.WIDEST + 2), self._style("title"))
        room = width - self.WIDEST - 4
        row.append(clip(each.value, room), self._style("value"))
        return row

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"metric-cards--{part}")
