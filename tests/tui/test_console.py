"""Progress of a job in lines: how far, how long still, and how often it is said."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest

from engine.events import EditStep, Event, Loading
from tui.console import SPARSE, Narrator
from tui.pace import Pace, about


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tui.console.time", SimpleNamespace(monotonic=made.monotonic))
    return made


def step(number: int, of: int = 25, job: str = "", t: float = 0.0) -> EditStep:
    return EditStep(
        step=number, of=of, loss=0.5, parts={}, p_new=0.25, p_old=math.nan, job=job, t=t
    )  # fmt: skip


def asked(done: float, job: str = "", t: float = 0.0) -> Loading:
    return Loading(stage="probes", done=done, total=96, unit="prompts", job=job, t=t)


def told(clock: Clock, *events: Event, every: float = 1.0, rewriting: bool = False) -> list[str]:
    """What is written of events that come one every so many seconds."""
    err = io.StringIO()
    narrator = Narrator(err, rewriting=rewriting)
    for event in events:
        narrator.feed(event, "correct")
        clock.now += every
    return [line.rstrip() for line in err.getvalue().replace("\r", "\n").split("\n") if line]


def test_a_log_is_told_sparsely_how_far_an_edit_is(clock: Clock) -> None:
    lines = told(clock, *(step(i) for i in range(1, 26)))
    assert lines == [
        "editing",
        "step 11 of 25, about 14 s left (loss 0.5, P(new) 0.25)",
        "step 21 of 25, about 4 s left (loss 0.5, P(new) 0.25)",
    ]


@pytest.mark.parametrize("every", [0.06, 1.0, 7.0, 60.0])
def test_a_log_has_no_more_lines_than_its_time_allows(clock: Clock, every: float) -> None:
    began, count = clock.now, 200
    lines = told(clock, *(step(i, count) for i in range(1, count + 1)), every=every)
    assert 2 <= len(lines) <= 1 + (clock.now - began) / SPARSE


def test_an_edit_of_a_moment_is_one_line(clock: Clock) -> None:
    assert told(clock, *(step(i) for i in range(1, 26)), every=0.1) == ["editing"]


def test_a_terminal_is_told_each_step(clock: Clock) -> None:
    lines = told(clock, *(step(i) for i in range(1, 4)), rewriting=True)
    assert lines == [
        "step 1 of 25 (loss 0.5, P(new) 0.25)",
        "step 2 of 25, about 23 s left (loss 0.5, P(new) 0.25)",
        "step 3 of 25, about 22 s left (loss 0.5, P(new) 0.25)",
    ]


def test_a_stage_has_its_own_estimate(clock: Clock) -> None:
    lines = told(clock, asked(0), asked(24), asked(48), step(1), every=12.0)
    assert lines == [
        "asking the checks",
        "asking the checks: 24 of 96 prompts, about 36 s left",
        "asking the checks: 48 of 96 prompts, about 24 s left",
        "editing",
    ]


def test_times_are_those_of_the_job_where_it_has_them(clock: Clock) -> None:
    """Events that were waiting come at once."""
    lines = told(clock, asked(0, "j", 1.0), asked(48, "j", 9.0), every=0.2, rewriting=True)
    assert lines[-1] == "asking the checks: 48 of 96 prompts, about 8 s left"


def left_after(*events: EditStep | Loading) -> float:
    pace = Pace()
    for event in events:
        pace.feed(event, event.t)
    return pace.left()


def test_a_pace_begins_anew() -> None:
    assert math.isnan(left_after(asked(24, t=4.0)))
    assert math.isnan(left_after(asked(96, t=4.0), asked(0, t=5.0)))
    assert left_after(asked(96, t=4.0), asked(0, t=5.0), asked(48, t=6.0)) == 1.0
    assert math.isnan(left_after(step(5, job="a", t=40.0), step(7, job="b", t=1.0)))
    assert left_after(step(5, t=1.0), asked(0, t=2.0), step(10, t=3.0), step(15, t=4.0)) == 2.0


def test_steps_that_were_not_needed_are_expected_of_no_later_group() -> None:
    """Two groups of 25 that took 10 steps each, two to come."""
    first = [step(i, 100, t=i) for i in range(1, 11)]
    second = [step(25 + i, 100, t=10 + i) for i in range(1, 11)]
    third = step(51, 100, t=21)
    assert left_after(*first, *second, third) == pytest.approx(20 / 50 * 49)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (math.nan, ""), (0.0, ""), (0.2, "about 1 s left"), (20.4, "about 20 s left"),
        (119.0, "about 119 s left"), (150.0, "about 2 min left"), (7300.0, "about 2 h left"),
    ],
)  # fmt: skip
def test_about(seconds: float, text: str) -> None:
    assert about(seconds) == text
