"""Recordings as acts: what belongs together, in which order, whatever was written of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import LONG, QUESTION, SYDNEY, Script, busy

from engine.events import EditPlanned, EditStep, EditUndone, Event, JobEnded, Note
from sessions import Store
from tui.tape import Act, Tape, tape
from tui.timeline import turns_at


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def played(store: Store, session: str) -> Tape:
    return tape(store.recording(session))


def test_acts_come_in_the_order_in_which_they_were_done(store: Store) -> None:
    acts = played(store, busy(store)).acts
    assert [act.kind for act in acts] == [
        "ask", "correct", "undo", "redo", "ask", "retry", "refused", "correct", "correct",
        "correct", "aside", "correct", "ask", "drop",
    ]  # fmt: skip
    assert [act.number for act in acts] == [0, 1, 1, 1, 0, 0, 0, 2, 3, 4, 0, 5, 0, 5]
    states = [act.edit.state for act in acts if act.kind == "correct" and act.edit]
    assert states == ["done", "failed", "cancelled", "interrupted", "done"]


def test_every_event_is_in_one_act(store: Store) -> None:
    found = played(store, busy(store))
    told = [(e.job, e.event["seq"], e.event["kind"]) for e in found.recording.events]
    kept = [(e.job, e.seq, e.kind) for act in found.acts for e in act.events]
    assert sorted(kept) == sorted(told)
    assert found.unknown == 0


def test_jobs_of_another_process_are_told_apart_though_their_names_repeat(store: Store) -> None:
    script = Script(store)
    script.ask(QUESTION, SYDNEY)
    script.restart()
    script.ask(LONG, "Seattle")
    first, second = played(store, script.session).acts
    assert [(a.question, len(a.events)) for a in (first, second)] == [(QUESTION, 2), (LONG, 2)]


def test_turns_after_an_act_are_those_of_its_tip(store: Store) -> None:
    acts = played(store, session := busy(store)).acts
    assert [turn.answer for turn in acts[0].turns] == [SYDNEY]
    assert [turn.answer for turn in acts[1].turns] == ["Canberra"]
    assert [turn.answer for turn in acts[2].turns] == [SYDNEY], "undone: the old answer"
    assert acts[-1].turns == tuple(turns_at(store, session))


def test_edits_after_an_act_are_those_begun_by_then(store: Store) -> None:
    acts = played(store, busy(store)).acts
    assert [[e.state for e in act.edits] for act in acts[:4]] == [
        [], ["applied"], ["undone"], ["applied"],
    ]  # fmt: skip
    assert [e.state for e in acts[-1].edits] == [
        "applied", "failed", "cancelled", "interrupted", "undone",
    ]  # fmt: skip


def test_a_correction_knows_which_turn_it_asks_again(store: Store) -> None:
    acts = played(store, busy(store)).acts
    assert [act.place for act in acts if act.kind == "correct"] == [0, -1, -1, -1, -1]
    assert acts[5].place == 1
    assert acts[5].question == LONG


def test_waiting_between_acts_is_read_off_the_tree(store: Store) -> None:
    acts = played(store, busy(store)).acts
    assert math.isnan(acts[0].waited)
    assert acts[1].waited == pytest.approx(150, abs=0.1)
    assert acts[4].waited == pytest.approx(4, abs=0.1)


def test_an_answer_after_a_first_attempt_without_one_is_an_act_of_its_own(store: Store) -> None:
    script = Script(store)
    with script.clock():
        asked = store.add_message(script.session, "user", QUESTION).id
    stopped = JobEnded(state="cancelled", seconds=0.1)
    script.tell(script.job("ask"), asked, [(0.1, stopped)])
    script.retry(SYDNEY)
    acts = played(store, script.session).acts
    assert [(a.kind, bool(a.answer), len(a.events)) for a in acts] == [
        ("ask", False, 1), ("retry", True, 2),
    ]  # fmt: skip


def test_a_job_with_several_edits_is_as_many_acts(store: Store) -> None:
    script = Script(store)
    for edit in ("one-edit", "two-edit"):
        script.correct("Canberra", edit, again=False)
    recording = store.recording(script.session)
    merged = [_as_job(told.event, i) for i, told in enumerate(recording.events)]
    ends = [e for e in merged if e["kind"] != "JobEnded"] + [merged[-1]]
    script.store.remove_sessions([script.session])
    again = Script(store, title="batch")
    again.job("correct")
    for edit in ("one-edit", "two-edit"):
        again.correct("Canberra", edit, again=False)
    found = store.recording(again.session)
    import dataclasses

    from sessions import Told

    node = found.nodes[-1].id
    events = tuple(Told(node, "correct-1", event) for event in ends)
    acts = tape(dataclasses.replace(found, events=events)).acts
    assert [(a.kind, a.number, _count(a, EditStep), _count(a, EditPlanned)) for a in acts] == [
        ("correct", 1, 12, 1), ("correct", 2, 12, 1),
    ]  # fmt: skip


def _as_job(event: dict[str, object], seq: int) -> dict[str, object]:
    return {**event, "job": "correct-1", "seq": seq, "t": seq / 10}


def _count(act: Act, kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for event in act.events)


def test_a_job_that_undoes_several_edits_is_as_many_acts(store: Store) -> None:
    script = Script(store)
    script.ask(QUESTION, SYDNEY)
    for edit in ("one-edit", "two-edit"):
        script.correct("Canberra", edit, again=False)
    job, previous = script.job("undo_to"), store.nodes(script.session)[-1].id
    for edit in ("two-edit", "one-edit"):
        script.mark("undo", edit, told=False)
    undone = [
        EditUndone(edit=e, action="undo", active=0, ledger="") for e in ("two-edit", "one-edit")
    ]
    ended = JobEnded(state="done", seconds=0.3)
    script.tell(job, previous, list(zip((0.1, 0.2, 0.3), (*undone, ended), strict=True)))
    acts = played(store, script.session).acts[-2:]
    assert [(a.kind, a.number, len(a.events)) for a in acts] == [("undo", 2, 1), ("undo", 1, 2)]


def test_forgotten_messages_leave_the_turns(store: Store) -> None:
    script = Script(store)
    script.ask(LONG, "Seattle")
    with script.clock():
        store.forget(script.session, store.path(script.session)[0].id)
    *_, act = played(store, script.session).acts
    assert act.kind == "forget"
    assert act.text == LONG
    assert act.turns == ()


def test_what_a_later_version_told_is_counted_not_guessed(store: Store) -> None:
    script = Script(store)
    node = script.ask(QUESTION, SYDNEY)
    odd = {"kind": "Dreamt", "v": 1, "seq": 0, "t": 0.0}
    newer = {**Note(text="x").to_json(), "v": 99}
    store.add_events(script.session, node, "ask-9", [odd, newer])
    found = played(store, script.session)
    assert found.unknown == 2
    assert len(found.acts) == 1


def test_an_empty_session(store: Store) -> None:
    found = played(store, Script(store).session)
    assert found.acts == ()
