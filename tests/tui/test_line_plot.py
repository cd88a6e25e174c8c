"""The plot: scales, decimation, and being readable without colour."""

from __future__ import annotations

import math

import pytest
from rich.text import Text
from textual.app import App, ComposeResult

from tui.widgets.line_plot import (
    BOTH,
    Canvas,
    LinePlot,
    Range,
    Series,
    _spread,
    decimate,
    number,
)


class PlotApp(App[None]):
    CSS = "LinePlot { width: 50; height: 10; }"

    def __init__(self, plot: LinePlot) -> None:
        super().__init__()
        self.plot = plot

    def compose(self) -> ComposeResult:
        yield self.plot


async def drawn(plot: LinePlot, series: list[Series], **how: object) -> list[str]:
    app = PlotApp(plot)
    async with app.run_test(size=(60, 20)) as pilot:
        plot.show(series, **how)  # type: ignore[arg-type]
        await pilot.pause()
        text = plot.render()
        assert isinstance(text, Text)
        return text.plain.split("\n")


def test_decimation_keeps_the_ends_and_the_means() -> None:
    values = [float(i) for i in range(1000)]
    short = decimate(values, 50)
    assert len(short) == 50
    assert (short[0], short[-1]) == (0.0, 999.0)
    assert short == sorted(short)
    assert decimate([1.0, 2.0], 50) == [1.0, 2.0]


def test_decimation_passes_gaps_on() -> None:
    short = decimate([0.0, *[math.nan] * 500, 1.0], 10)
    assert math.isnan(short[5])
    assert short[-1] == 1.0


def test_the_range_grows_at_once_and_shrinks_late() -> None:
    ends = Range(log=False)
    assert ends.fit([0.0, 1.0]) == (0.0, 1.0)
    low, high = ends.fit([0.0, 5.0])
    assert low <= 0.0
    assert high >= 5.0
    assert ends.fit([0.0, 4.0]) == (low, high), "most of the axis is in use: it stays"
    assert ends.fit([0.0, 1.0])[1] < high, "most of it is empty: it shrinks"


def test_a_log_range_is_in_decades_and_leaves_out_what_has_no_log() -> None:
    ends = Range(log=True)
    low, high = ends.fit([0.02, 5.0, 0.0, -1.0, math.nan, math.inf])
    assert low <= math.log10(0.02)
    assert math.log10(5.0) <= high <= 1.0
    assert math.isnan(ends.scale(0.0))


def test_one_dot_lands_in_its_cell() -> None:
    canvas = Canvas(2, 1)
    canvas.dot(0, 0, 0)
    canvas.dot(3, 3, 0)
    canvas.dot(99, 99, 0)  # outside: left out
    assert [canvas.char(0, 0), canvas.char(0, 1)] == ["⠁", "⢀"]


def test_last_points_in_one_cell_are_marked_as_both() -> None:
    canvas = Canvas(2, 1)
    canvas.mark(0, 0, 0)
    canvas.mark(1, 1, 1)
    assert canvas.char(0, 0) == BOTH


def test_labels_never_share_a_row_and_keep_their_order() -> None:
    assert _spread([(8, 1), (9, 0)], height=6) == {2: 1, 3: 0}
    assert _spread([(23, 1), (23, 0)], height=6) == {4: 1, 5: 0}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (4.912, "4.91"),
        (12.34, "12.3"),
        (0.031, "0.03"),
        (0.0004, "4e-4"),
        (math.nan, "–"),
        (1234567, "1e6"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown
    assert len(number(value)) <= 5


async def test_series_differ_by_mark_dash_and_label() -> None:
    new = Series("P(new)", "Paris", [i / 20 for i in range(20)])
    old = Series("P(old)", "Seattle", [1 - i / 20 for i in range(20)])
    lines = await drawn(LinePlot("Probability", bounds=(0, 1)), [new, old], summary="new ● 0.95")
    assert len(lines) == 10
    assert "new ● 0.95" in lines[0]
    assert any("●" in line and "Paris" in line for line in lines[1:3]), "the new one ends on top"
    assert any("○" in line and "Seattle" in line for line in lines[-3:])
    assert lines[1].startswith(" 1.00┤")
    assert lines[-1].startswith(" 0.00┤")


async def test_a_dashed_line_has_fewer_dots() -> None:
    async def dots(series: list[Series]) -> int:
        lines = await drawn(LinePlot("P", bounds=(0, 1)), series)
        cells = [c for line in lines[1:] for c in line if 0x2800 < ord(c) < 0x2900]
        return sum(bin(ord(c) - 0x2800).count("1") for c in cells)

    flat = [0.5] * 20
    nothing = Series("a")
    assert await dots([nothing, Series("b", values=flat)]) < await dots([Series("a", values=flat)])


async def test_planned_steps_leave_room_on_the_right() -> None:
    def reach(lines: list[str]) -> int:
        return max(line.find("●") for line in lines)

    series = [Series("loss", values=[5.0, 2.0, 1.0, 0.5])]
    begun = await drawn(LinePlot("Loss", log=True), series, x_max=20)
    ended = await drawn(LinePlot("Loss", log=True), series, x_max=4)
    assert reach(begun) < reach(ended) == 49


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [-1.0, math.inf]])
async def test_nothing_to_draw_is_an_empty_plot(values: list[float]) -> None:
    lines = await drawn(LinePlot("Loss", log=True), [Series("loss", values=values)])
    assert "●" not in "".join(lines)


async def test_a_threshold_is_a_dotted_line_within_the_axis() -> None:
    plot = LinePlot("Loss", log=True)
    lines = await drawn(plot, [Series("loss", values=[5.0, 4.0])], threshold=0.1)
    dotted = [line for line in lines[1:] if line.count("⠁") + line.count("⡀") > 10]
    assert len(dotted) == 1
    without = await drawn(LinePlot("Loss", log=True), [Series("loss", values=[5.0, 4.0])])
    assert not any(line.count("⠁") + line.count("⡀") > 10 for line in without[1:])
