"""The state behind the panes, folded from events alone."""

from __future__ import annotations

import dataclasses
import math

from engine.events import (
    EditApplied,
    EditPlanned,
    EditStep,
    Event,
    JobEnded,
    Loading,
    Metric,
    Problem,
)
from tui.edit_state import EditState


def step(number: int, t: float) -> EditStep:
    return EditStep(
        step=number, of=20, loss=1.0, parts={}, p_new=0.1, p_old=math.nan, t=t
    )  # fmt: skip


def planned(*sites: str) -> EditPlanned:
    return EditPlanned(
        edit="e", method="rome", prompt="p", subject="s", target="t", old="o", sites=sites, steps=20
    )


def applied(success: bool = True) -> EditApplied:
    return EditApplied(
        edit="e", method="rome", success=success, verdict="Changed.", answer_before="a",
        answer_after="b", sites=(),
    )  # fmt: skip


def fed(*events: Event) -> EditState:
    state = EditState(question="q", target="t", method="rome")
    for event in events:
        state.feed(event)
    return state


def test_the_estimate_comes_from_the_steps_own_times() -> None:
    state = fed(*(step(i, t=100 + i * 0.25) for i in range(1, 11)))
    assert state.pace.left() == 2.5
    assert state.progress() == "step 10/20 · 2.5 s left"
    assert state.share() == 0.5


def test_there_is_no_estimate_from_one_step() -> None:
    assert fed(step(1, 0.1)).progress() == "step 1/20"


def test_stages_are_named() -> None:
    assert fed(Loading(stage="probes", done=2, total=6)).progress() == "asking the checks 2/6"
    assert fed(Loading(stage="download", done=2e6, total=9e6, unit="B")).progress() == (
        "downloading 2/9 MB"
    )


def test_a_stage_has_an_estimate_and_a_share_of_its_own() -> None:
    state = fed(
        Loading(stage="statistics", done=10_000, total=60_000, unit="tokens", t=5.0),
        Loading(stage="statistics", done=30_000, total=60_000, unit="tokens", t=15.0),
    )
    assert state.progress() == "key statistics 50 % · 15 s left"
    assert state.share() == 0.5


def test_the_title_names_number_method_and_layers() -> None:
    state = fed(planned("model.layers.6.mlp.down_proj"))
    state.number = 4
    assert state.title == "Edit 4 · rome · layer 6"
    assert fed(planned("h.3.mlp", "h.4.mlp", "h.5.mlp")).layer == "layers 3–5"


def test_a_cancelled_edit_changed_nothing() -> None:
    state = fed(step(1, 0.1), JobEnded(state="cancelled", seconds=1.0))
    assert state.verdict() == ("muted", "Stopped. Nothing was changed.")
    assert state.progress() == "cancelled after 1 steps · 1.0 s"


def test_an_edit_stands_although_its_second_answer_was_stopped() -> None:
    state = fed(applied(), JobEnded(state="cancelled", seconds=1.0))
    state.stands = True
    assert state.verdict() == ("good", "Changed.")


def test_a_measurement_may_come_until_the_end() -> None:
    end = JobEnded(state="done", seconds=1.0)
    assert not fed(applied()).measured
    assert fed(applied(), end).measured
    unrecorded = fed(end)
    unrecorded.stands = True
    assert not unrecorded.measured, "it may have been measured"


def test_why_there_is_no_curve() -> None:
    closed = dataclasses.replace(planned(), steps=0)
    assert fed(closed).without_curve == "This method optimises nothing"
    stopped = fed(JobEnded(state="cancelled", seconds=1.0))
    assert not stopped.optimises
    assert stopped.without_curve == "It ended before its first step"
    made = fed(applied(), JobEnded(state="done", seconds=1.0))  # its other events are missing
    made.stands = True
    assert made.without_curve == "Its steps were not recorded"


def test_a_failed_job_says_why_and_what_to_do() -> None:
    state = fed(
        Problem(error="DivergedLoss", message="the loss became NaN.", remedy="Lower v_lr."),
        JobEnded(state="failed", seconds=1.0),
    )
    assert state.verdict() == ("bad", "the loss became NaN. Lower v_lr.")


def test_an_edit_that_did_not_take_is_bad_news() -> None:
    assert fed(applied(success=False)).verdict()[0] == "bad"


def test_a_moved_neighbour_is_not_all_good() -> None:
    moved = Metric(name="neighbours", before=1, after=0.8, n=5)
    assert fed(moved, applied()).verdict()[0] == "partly"


def test_undone_comes_before_everything() -> None:
    state = fed(applied(), JobEnded(state="done", seconds=1.0))
    state.stands = state.undone = True
    assert state.verdict()[1].startswith("Undone")


def test_metrics_are_kept_by_name() -> None:
    state = fed(Metric(name="said", before=0, after=1, n=1))
    assert state.metrics["said"].after == 1
