"""One measurement in full: the single answers before and after, or the change of each weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.events import Metric

from ..edit_state import METRICS
from ..texts import visible
from .edit_strip import BARS, PLAIN_BARS, spark
from .line import Line
from .line_plot import plain
from .metric_cards import MARKS, TITLES, card


def probability(value: float) -> str:
    return "not measured" if math.isnan(value) else f"{value:.4f}"


def rows_table(metric: Metric) -> Table:
    """Each question with its answers; a mark and a word say whether it came out as it should."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=10, no_wrap=True)
    grid.add_column(ratio=1)
    words = {"rephrased": ("hit", "says it", "does not")}.get(
        metric.name, ("kept", "kept", "moved")
    )
    key, good, bad = words
    for row in metric.detail.get("rows", ()):
        fine = bool(row.get(key))
        said = Text(visible(str(row["prompt"])), "bold")
        said.append(f"\n  before  {visible(str(row['before'])) or '(nothing)'}", "not bold dim")
        said.append(f"\n  after   {visible(str(row['after'])) or '(nothing)'}", "not bold")
        mark = MARKS["good" if fine else "bad"]
        grid.add_row(Text(f"{mark} {good if fine else bad}"), said)
    return grid


def said_table(metric: Metric) -> Table:
    detail = metric.detail
    return pairs(
        [
            ("should say", str(detail.get("target", ""))),
            ("said before", str(detail.get("answer_before", "")) or "(nothing)"),
            ("says now", str(detail.get("answer_after", "")) or "(nothing)"),
            ("P(new) before", probability(detail.get("p_new_before", math.nan))),
            ("P(new) now", probability(detail.get("p_new_after", math.nan))),
        ]
    )


def fluency_table(metric: Metric) -> Table:
    change = metric.after / metric.before - 1 if metric.before else math.nan
    return pairs(
        [
            ("perplexity before", f"{metric.before:.3f}"),
            ("perplexity now", f"{metric.after:.3f}"),
            ("change", "not measured" if math.isnan(change) else f"{100 * change:+.2f} %"),
            ("measured on", f"{metric.n} paragraphs of fixed prose; lower is better"),
        ]
    )


def weight_table(metric: Metric, signs: str) -> Table:
    """‖Δ‖/‖W‖ of each edited weight, and all of them as bars."""
    ratios = {site: float(ratio) for site, ratio in metric.detail.items()}
    rows = [(site, f"{100 * ratio:.3g} % of its norm") for site, ratio in ratios.items()]
    bars = spark(list(ratios.values()), 60, bars=signs)
    return pairs([*rows, ("in order", bars)] if len(rows) > 1 else rows)


def pairs(rows: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(ratio=1)
    for name, value in rows:
        grid.add_row(Text(name), Text(visible(value)))
    return grid


class CheckDetails(ModalScreen[None]):
    """The measurements of an edit, one at a time."""

    HELP = "← and → go from one measurement to the next, ↑ and ↓ scroll, Esc closes."
    BINDINGS: ClassVar = [
        Binding("escape,q,enter,f7", "app.pop_screen", "Close"),
        Binding("left,h", "turn(-1)", "Previous", show=False),
        Binding("right,l,tab", "turn(1)", "Next", show=False, priority=True),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("f1", "app.help", "Help", show=False),
    ]

    def __init__(self, title: str, metrics: Mapping[str, Metric], name: str = "") -> None:
        """`name`: the measurement to begin with; "" or one that was not made: the first."""
        super().__init__()
        self._title = title
        self.metrics = dict(metrics)
        self.names = [each for each in METRICS if each in metrics]
        self.names += [each for each in metrics if each not in METRICS]
        self.place = self.names.index(name) if name in self.names else 0

    def compose(self) -> ComposeResult:
        with Vertical(id="details"):
            yield Line(id="details-names")
            with VerticalScroll(id="details-body"):
                yield Static("", id="details-rows", markup=False)

    def on_mount(self) -> None:
        box = self.query_one("#details")
        box.border_title = f"Checks · {self._title}"
        box.border_subtitle = "←→ others · ↑↓ scroll · Esc closes"
        self.query_one("#details-body").focus()
        self._draw()

    def _draw(self) -> None:
        metric = self.metrics[self.names[self.place]]
        names = Text()
        for index, name in enumerate(self.names):
            shown = card(name, self.metrics[name])
            chosen = index == self.place
            names.append("   " if index else "")
            text = f"{shown.mark} {TITLES.get(name, name)} {shown.short}".rstrip()
            names.append(f"[{text}]" if chosen else text, "bold" if chosen else "dim")
        self.query_one("#details-names", Line).show(names)
        self.query_one("#details-rows", Static).update(self._body(metric))

    def _body(self, metric: Metric) -> RenderableType:
        if math.isnan(metric.after) or metric.n == 0:
            return Text("This was not measured.")
        if metric.detail.get("rows"):
            return rows_table(metric)
        signs = PLAIN_BARS if plain(self.query_one("#details-names")) else BARS
        made: dict[str, Any] = {
            "said": said_table,
            "fluency": fluency_table,
            "weight": lambda each: weight_table(each, signs),
        }
        build = made.get(metric.name)
        if build is None:
            return Text(f"{metric.before:.4g} → {metric.after:.4g} (n = {metric.n})")
        table: Table = build(metric)
        return table

    def action_turn(self, step: int) -> None:
        self.place = (self.place + step) % len(self.names)
        self._draw()

    def action_scroll(self, step: int) -> None:
        self.query_one("#details-body").scroll_relative(y=step * 2, animate=False)
