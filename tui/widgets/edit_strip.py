"""The correction in five rows, for terminals without room for the side pane."""

from __future__ import annotations

import math
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical

from ..edit_state import METRICS, VERDICTS, EditState
from ..texts import clip
from .line import Line
from .line_plot import MARKS, decimate, number, plain
from .metric_cards import SHORT, card
from .progress_line import ProgressLine

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-~=+*#"


def spark(values: list[float], width: int, log: bool = False, bars: str = BARS) -> str:
    """The values as a row of bars of `width` cells at most."""
    points = [math.log10(v) if log and v > 0 else v for v in decimate(values, width)]
    finite = [p for p in points if math.isfinite(p)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(
        bars[round((p - low) / span * (len(bars) - 1))] if math.isfinite(p) else " " for p in points
    )


class EditStrip(Vertical):
    """Title, curves as one line, progress, measurements as words, verdict."""

    COMPONENT_CLASSES: ClassVar = {"edit-strip--bars"}

    def compose(self) -> ComposeResult:
        yield Line(id="strip-curves")
        yield ProgressLine(id="strip-progress")
        yield Line(id="strip-cards")
        yield Line(id="strip-verdict")

    def show(self, state: EditState | None) -> None:
        """Draw this correction; the screen hides the strip when there is none."""
        if state is None:
            return
        width = max(20, self.app.size.width - 6)
        old, new = state.change
        change = f"{clip(old, 24)} → {clip(new, 24)}" if old and new else clip(new, 24)
        self.border_title = " · ".join(filter(None, (state.title, change)))
        self.border_subtitle = "F6 larger"
        self.query_one("#strip-curves", Line).show(self._curves(state, width))
        self.query_one(ProgressLine).show(state.share(), state.progress())
        self.query_one("#strip-cards", Line).show(self._cards(state, width))
        tone, sentence = state.verdict()
        verdict = self.query_one("#strip-verdict", Line)
        verdict.set_classes(f"-{tone}")
        mark = VERDICTS[tone]
        verdict.show(clip(f"{mark}{sentence}", width) if sentence else "")

    def _curves(self, state: EditState, width: int) -> Text:
        if not state.optimises:
            found = [f"{f.title}: {f.text}" for f in state.findings.values()]
            said = " · ".join(found) or state.without_curve
            return Text(clip(said, width), no_wrap=True)
        line = Text("loss ", no_wrap=True, overflow="ellipsis")
        if not state.steps:
            return line.append("–", "dim")
        first, last = state.steps[0], state.steps[-1]
        signs = PLAIN_BARS if plain(self) else BARS
        bars = spark([s.loss for s in state.steps], min(24, width // 4), log=True, bars=signs)
        line.append(bars, self.get_component_rich_style("edit-strip--bars", partial=True))
        line.append(f" {number(first.loss)} → {number(last.loss)}")
        line.append(f"   {MARKS[0]} {clip(state.target, 12)} {last.p_new:.2f}", "bold")
        if not math.isnan(last.p_old):
            line.append(f"  {MARKS[1]} {clip(state.old, 12)} {last.p_old:.2f}")
        return line

    def _cards(self, state: EditState, width: int) -> str:
        cards = [(name, card(name, state.metrics.get(name))) for name in METRICS]
        line = ""
        for name, each in cards:
            word = f"{each.mark} {SHORT.get(name, each.title)} {each.short}" if each.value else ""
            if word and len(line) + len(word) + 3 <= width:
                line += f"   {word}" if line else word
        missing = "the checks come after the edit" if state.running else "no checks were made"
        return line or f"· {missing}"
