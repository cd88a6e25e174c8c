"""A line plot in braille dots: four by two dots in each cell.

Up to three series. They differ by colour, by dash (solid, dashed, dotted), by the mark at the
last point and by the label beside it, so that the plot reads the same without colour.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a braille cell
UPPER = 0x01 | 0x08 | 0x02 | 0x10  # the dots of a cell's upper half
MARKS = ("●", "○", "△")
BOTH = "◉"  # two last points in one cell
PLAIN_MARKS = ("*", "o", "^")  # where there are no other signs than ASCII
PLAIN_BOTH = "@"
DASHES = ((1, 0), (3, 2), (1, 2))  # dots drawn, dots left out
AXIS = 6  # cells left of the canvas: a number and the axis


@dataclass
class Series:
    """One line: `values[i]` is drawn at x = i + 1; NaN leaves a gap."""

    name: str
    label: str = ""  # beside the last point
    values: list[float] = field(default_factory=list)

    @property
    def last(self) -> float:
        return next((v for v in reversed(self.values) if math.isfinite(v)), math.nan)


def decimate(values: Sequence[float], limit: int) -> list[float]:
    """At most `limit` values: means of equal runs, the first and the last kept as they are."""
    if len(values) <= limit:
        return list(values)
    inner, count = values[1:-1], limit - 2
    edges = [round(i * len(inner) / count) for i in range(count + 1)]
    means = []
    for low, high in itertools.pairwise(edges):
        run = [v for v in inner[low:high] if math.isfinite(v)]
        means.append(sum(run) / len(run) if run else math.nan)
    return [values[0], *means, values[-1]]


class Range:
    """The y axis's ends. It grows at once and shrinks only when half of it lies empty."""

    def __init__(self, log: bool) -> None:
        self.log = log
        self.low = self.high = math.nan

    def fit(self, values: Iterable[float]) -> tuple[float, float]:
        """The ends, in plot units (decades when logarithmic), after having seen `values`."""
        points = [self.scale(v) for v in values]
        points = [p for p in points if math.isfinite(p)]
        if not points:
            return (0.0, 1.0)
        step = 0.5 if self.log else _step(max(points) - min(points))
        low = math.floor(min(points) / step) * step
        high = math.ceil(max(points) / step) * step
        if high <= low:
            high = low + step
        unset = math.isnan(self.low)
        outside = not unset and (low < self.low or high > self.high)
        roomy = not unset and (high - low) < 0.5 * (self.high - self.low)
        if unset or roomy:
            self.low, self.high = low, high
        elif outside:
            self.low, self.high = min(low, self.low), max(high, self.high)
        return (self.low, self.high)

    def scale(self, value: float) -> float:
        """A value in plot units; NaN for what cannot be shown."""
        if not self.log:
            return value
        return math.log10(value) if value > 0 and math.isfinite(value) else math.nan


def _step(span: float) -> float:
    if span <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(span))
    return next(float(k * decade) for k in (0.1, 0.2, 0.5, 1, 2) if k * decade * 8 >= span)


class Canvas:
    """Dots on `width` x `height` cells; each cell remembers which series drew in it last."""

    def __init__(self, width: int, height: int, ascii: bool = False) -> None:
        self.width, self.height = width, height
        self.ascii = ascii
        self.bits = [[0] * width for _ in range(height)]
        self.owner = [[-1] * width for _ in range(height)]
        self.marks: dict[tuple[int, int], str] = {}

    def dot(self, x: int, y: int, owner: int) -> None:
        if 0 <= x < self.width * 2 and 0 <= y < self.height * 4:
            self.bits[y // 4][x // 2] |= DOTS[y % 4][x % 2]
            self.owner[y // 4][x // 2] = owner

    def line(self, a: tuple[int, int], b: tuple[int, int], owner: int, phase: int) -> int:
        """Dots from a to b in the series' dash; returns the phase for the next piece."""
        on, off = DASHES[owner % len(DASHES)]
        steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
        for i in range(steps + 1):
            if (phase + i) % (on + off) < on:
                share = i / steps
                self.dot(
                    round(a[0] + (b[0] - a[0]) * share), round(a[1] + (b[1] - a[1]) * share), owner
                )
        return phase + steps

    def mark(self, x: int, y: int, owner: int) -> None:
        cell = (min(y // 4, self.height - 1), min(x // 2, self.width - 1))
        marks, both = (PLAIN_MARKS, PLAIN_BOTH) if self.ascii else (MARKS, BOTH)
        self.marks[cell] = both if cell in self.marks else marks[owner % len(marks)]
        self.owner[cell[0]][cell[1]] = owner

    def char(self, row: int, column: int) -> str:
        mark = self.marks.get((row, column))
        if mark:
            return mark
        bits = self.bits[row][column]
        if self.ascii:
            upper, lower = bool(bits & UPPER), bool(bits & ~UPPER)
            return " '.:"[upper + 2 * lower]
        return chr(0x2800 + bits) if bits else " "


def plain(widget: Widget) -> bool:
    """Whether only ASCII characters may be drawn with."""
    return bool(getattr(widget.app, "ascii", False))


def number(value: float) -> str:
    """Short: three significant figures, at most five characters."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size and (size < 0.0095 or size >= 99_500):
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if size >= 99.5:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"


class LinePlot(Widget):
    """A title with the last values, and the curves below it."""

    COMPONENT_CLASSES: ClassVar = {
        "line-plot--title",
        "line-plot--axis",
        "line-plot--series-0",
        "line-plot--series-1",
        "line-plot--series-2",
    }
    ALLOW_SELECT = False

    def __init__(
        self,
        title: str,
        *,
        log: bool = False,
        bounds: tuple[float, float] | None = None,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.title = title
        self.logarithmic = log
        self.bounds = bounds
        self.series: list[Series] = []
        self.x_max = 0
        self.summary = ""
        self.threshold = math.nan
        self._range = Range(log)

    def show(
        self,
        series: list[Series],
        *,
        x_max: int = 0,
        summary: str = "",
        threshold: float = math.nan,
    ) -> None:
        """Draw these instead. `x_max` is the number of steps planned, 0 when unknown.

        threshold  drawn as a dotted line across; NaN for none
        """
        if not any(s.values for s in series):
            self._range = Range(self.logarithmic)
        # NaN differs from itself: compared as text
        new = (series, x_max, summary, str(threshold))
        if new != (self.series, self.x_max, self.summary, str(self.threshold)):
            self.series, self.x_max, self.summary = series[:3], x_max, summary
            self.threshold = threshold
            self.refresh()

    def render(self) -> Text:
        width, height = self.size
        lines = [self._title(width)]
        if width > AXIS + 8 and height > 2 and any(s.values for s in self.series):
            lines += self._plot(width, height - 1)
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _title(self, width: int) -> Text:
        name = Text(self.title, style=self.get_component_rich_style("line-plot--title"))
        room = width - len(self.title) - 2
        name.append(" " * max(2, width - len(self.title) - len(self.summary)))
        name.append(self.summary[:room] if room > 0 else "", style=self._style(-1))
        return name

    def _style(self, owner: int) -> Style:
        part = "axis" if owner < 0 else f"series-{owner % 3}"
        return self.get_component_rich_style(f"line-plot--{part}")

    def _ends(self) -> tuple[float, float]:
        if self.bounds:
            return self.bounds
        values = [v for s in self.series for v in s.values]
        return self._range.fit([*values, self.threshold])

    def _plot(self, width: int, height: int) -> list[Text]:
        labels = max((len(s.label) for s in self.series), default=0)
        margin = min(labels, width // 3) + 1 if labels else 0
        canvas = Canvas(width - AXIS - margin, height, plain(self))
        low, high = self._ends()
        self._dot_across(canvas, low, high)
        rows = []  # the last points: dots below the top, series
        for owner, series in enumerate(self.series):
            y = self._draw(canvas, owner, series, low, high)
            if y is not None and series.label:
                rows.append((y, owner))
        ends = _spread(sorted(rows), height)
        return [self._row(canvas, row, low, high, ends, margin) for row in range(height)]

    def _dot_across(self, canvas: Canvas, low: float, high: float) -> None:
        """The threshold, where it is within the axis; every fourth dot."""
        y = self._range.scale(self.threshold)
        if math.isfinite(y) and low <= y <= high:
            row = round((1 - (y - low) / (high - low)) * (canvas.height * 4 - 1))
            for x in range(0, canvas.width * 2, 4):
                canvas.dot(x, row, -1)

    def _draw(
        self, canvas: Canvas, owner: int, series: Series, low: float, high: float
    ) -> int | None:
        """The series as dots; how many dots its last point is below the top, None without one."""
        values = decimate(series.values, canvas.width * 2)
        across = max(self.x_max if len(values) == len(series.values) else 0, len(values), 2) - 1
        previous: tuple[int, int] | None = None
        phase = 0
        for i, value in enumerate(values):
            y = self._range.scale(value)
            if not math.isfinite(y):
                previous = None
                continue
            share = min(1.0, max(0.0, (y - low) / (high - low)))
            point = (
                round(i / across * (canvas.width * 2 - 1)),
                round((1 - share) * (canvas.height * 4 - 1)),
            )
            phase = canvas.line(previous or point, point, owner, phase)
            previous = point
        if previous is None:
            return None
        canvas.mark(*previous, owner)
        return previous[1]

    def _row(
        self, canvas: Canvas, row: int, low: float, high: float, ends: dict[int, int], margin: int
    ) -> Text:
        text = Text(no_wrap=True)
        text.append(f"{self._tick(row, canvas.height, low, high):>{AXIS - 1}}", self._style(-1))
        axis = "||" if canvas.ascii else "│┤"
        text.append(axis[row in (0, canvas.height - 1)], self._style(-1))
        for column in range(canvas.width):
            text.append(canvas.char(row, column), self._style(canvas.owner[row][column]))
        if row in ends:
            label = self.series[ends[row]].label
            short = label if len(label) < margin else label[: margin - 2] + "…"
            text.append(f" {short}", self._style(ends[row]))
        return text

    def _tick(self, row: int, height: int, low: float, high: float) -> str:
        if row not in (0, height - 1):
            return ""
        value = high if row == 0 else low
        return number(10**value if self.logarithmic else value)


def _spread(ends: list[tuple[int, int]], height: int) -> dict[int, int]:
    """Row -> series of its label: near the last point, in the points' order, none on another."""
    taken: dict[int, int] = {}
    lowest = height - len(ends)
    row = -1
    for place, (y, owner) in enumerate(ends):
        row = min(max(y // 4, row + 1), lowest + place)
        taken[row] = owner
    return taken
