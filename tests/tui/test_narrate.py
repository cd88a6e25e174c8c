"""The researcher's log: every event that matters becomes a line."""

from __future__ import annotations

import math

import pytest

from engine.events import (
    KINDS,
    EditApplied,
    EditPlanned,
    EditStep,
    Event,
    Finding,
    JobEnded,
    Loading,
    Metric,
    Problem,
    Token,
)
from tui.narrate import narrate, size


def test_the_plan_shows_prompt_subject_contexts_and_hyperparameters() -> None:
    planned = EditPlanned(
        edit="e1", method="rome", prompt="The tower is in", subject="tower", target=" Paris",
        old="Rome", sites=("model.layers.6.mlp.down_proj",), steps=20, subject_token=" tower",
        subject_position=2, contexts=("The sun", "I was"), hparams={"layer": 6, "lr": None},
    )  # fmt: skip
    assert narrate(planned) == [
        "edit e1: rome at model.layers.6.mlp.down_proj",
        "prompt: 'The tower is in'",
        "target: ' Paris', old: 'Rome'",
        "subject: 'tower', last token ' tower' at position 2",
        "context 1: 'The sun'",
        "context 2: 'I was'",
        "hyper-parameters: layer 6, lr None",
    ]


def test_a_step_shows_the_loss_and_its_parts() -> None:
    step = EditStep(
        step=3, of=20, loss=1.5, parts={"nll": 1.25, "kl": 0.25}, p_new=0.5, p_old=math.nan,
        delta_norm=2.0,
    )  # fmt: skip
    assert narrate(step) == ["step  3/20  loss 1.5 = nll 1.25 + kl 0.25  P(new) 0.5000  ‖δ‖ 2"]


def test_the_outcome_shows_norms_denominator_updates_and_times() -> None:
    applied = EditApplied(
        edit="e1", method="rome", success=True, verdict="Changed.", answer_before="Rome",
        answer_after="Paris", sites=({"site": "mlp", "rank": 1, "norm_ratio": 0.0123},),
        numbers={"denominator": 15.6, "value_before": 1.0, "value_after": 9.0},
        seconds={"total": 1.5},
    )  # fmt: skip
    told = "\n".join(narrate(applied))
    for part in (
        "denominator k*ᵀC⁻¹k* 15.6", "value norm before 1", "value norm after 9",
        "update mlp: rank 1, ‖Δ‖/‖W‖ 0.0123", "total 1.50", "before: 'Rome'", "after: 'Paris'",
        "Changed.",
    ):  # fmt: skip
        assert part in told


def test_probes_are_listed_with_what_was_said_before_and_after() -> None:
    rows = [{"prompt": "p", "before": "a", "after": "b", "kept": False}]
    metric = Metric(name="neighbours", before=1.0, after=0.0, n=1, detail={"rows": rows})
    assert narrate(metric) == ["neighbours: 1 → 0 (n = 1)", "  - 'p': 'a' → 'b'"]
    unmeasured = Metric(name="fluency", before=math.nan, after=math.nan, n=0)
    assert narrate(unmeasured) == ["fluency: - → - (n = 0)"]


def test_progress_is_told_at_its_beginning_and_end_only() -> None:
    told = [
        line
        for done in (0, 1, 2)
        for line in narrate(Loading(stage="weights", done=done, total=2, unit="tensors"))
    ]
    assert told == ["loading the model", "loading the model: 2 of 2 tensors"]


def test_the_end_shows_time_and_memory() -> None:
    ended = JobEnded(state="done", seconds=1.234, peak_memory=123_000_000)
    assert narrate(ended) == ["done in 1.2 s, peak memory +123 MB"]
    assert narrate(Problem(error="X", message="a.", remedy="b.")) == ["a. b."]
    assert narrate(Token(text="a")) == []


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"Token"}))
def test_every_kind_of_event_but_tokens_has_words(kind: str) -> None:
    """A new kind of event must not be silent in the log by accident."""
    assert narrate.dispatch(KINDS[kind]) is not narrate.dispatch(Event)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (269_030_016, "269 MB"), (2.5e9, "2.50 GB")],
)
def test_sizes(amount: float, shown: str) -> None:
    assert size(amount) == shown


def test_findings_are_told_with_their_rows() -> None:
    rows = ({"label": "layer 9", "value": 0.5}, {"label": "a fact", "value": None})
    event = Finding(name="n", title="Neurons found", text="2", rows=rows)
    assert narrate(event) == ["Neurons found: 2", "  layer 9  0.5", "  a fact"]
