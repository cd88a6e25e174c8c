"""The assistant on a tiny model: turns, corrections, undo, sessions, failures, cancelling."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BadInput, BadRequest, SubjectAmbiguous
from engine.events import EditPlanned, EditStep, Event, Note, Problem, ReplyEnded, Token
from engine.worker import Job
from sessions.errors import SessionError
from sessions.store import Store
from tests.cli.small import LARGE, QUESTION, hparams
from tui.assistant import Assistant, Options

WAIT = 120.0
Make = Callable[..., Assistant]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def make(tiny_folder: Callable[..., Path], tmp_path: Path, home: Path) -> Iterator[Make]:
    """`make(**options)`: a loaded assistant with a tiny chat model."""
    made: list[Assistant] = []

    def assistant(load: bool = True, **options: Any) -> Assistant:
        base = Options(
            model=str(tiny_folder("llama", chat=True)),
            dtype="fp32",
            home=home,
            max_tokens=8,
            hp=hparams(tmp_path, **LARGE),
            prepare=False,
        )
        made.append(Assistant(dataclasses.replace(base, **options)))
        if load:
            done(made[-1].load())
        return made[-1]

    yield assistant
    for each in made:
        each.close(WAIT)


def done(job: Job[Any]) -> Any:
    """The result of a job that must succeed."""
    assert job.wait(WAIT)
    return job.value()


def at(job: Job[Any], kind: type[Event], count: int = 1) -> None:
    """Wait until a job has told its `count`-th event of a kind."""
    seen = 0
    for event in job.stream():
        seen += isinstance(event, kind)
        if seen == count:
            return
    raise AssertionError(f"{job} ended without {count} {kind.__name__}")


def answers(assistant: Assistant) -> list[str]:
    return [turn.answer for turn in assistant.snapshot().turns]


def test_a_question_is_answered_streamed_and_remembered(make: Make) -> None:
    assistant = make()
    job = assistant.ask(QUESTION)
    reply = done(job)
    spoken = "".join(e.text for e in job.events if isinstance(e, Token))
    assert spoken.rstrip() == reply.turn.answer != ""
    (turn,) = assistant.snapshot().turns
    assert (turn.question, turn.answer) == (QUESTION, reply.turn.answer)
    assert not assistant.snapshot().busy


def test_a_target_is_weighed_from_what_was_measured(make: Make) -> None:
    assistant = make()
    turn = done(assistant.ask(QUESTION)).turn
    found = done(assistant.weigh(turn, "Canberra is it", "rome"))
    assert "".join(piece.strip() for piece in found.pieces) == "Canberraisit"
    assert (found.measured, found.memory, found.fits) == (0, 0, True)
    assert math.isnan(found.seconds)
    same = done(assistant.weigh(turn, turn.answer, "rome"))
    assert same.shares
    view = done(assistant.correct("Canberra", turn=turn, subject="Australia", method="rome"))
    turn = view.turn  # asked again after the edit
    found = done(assistant.weigh(turn, "Canberra", "rome"))
    assert found.measured == 1
    assert found.seconds == pytest.approx(view.seconds["total"])
    assert done(assistant.weigh(turn, "Canberra", "r-rome")).measured == 0


def test_the_checks_can_be_asked_beforehand(make: Make) -> None:
    assistant = make()
    turn = done(assistant.ask(QUESTION)).turn
    found = done(assistant.preview(turn, "Canberra", "Australia"))
    kinds = [kind for kind, _, _ in found.rows]
    assert kinds.count("rephrased") == 3
    assert kinds.count("neighbour") >= 3
    assert found.perplexity > 1
    view = done(assistant.correct("Canberra", turn=turn, subject="Australia"))
    before = [row["before"] for row in view.metrics["rephrased"]["detail"]["rows"]]
    assert before == [answer for kind, _, answer in found.rows if kind == "rephrased"]
    assert len(assistant.snapshot().edits) == 1


def test_nothing_is_left_behind_by_a_chat_in_which_nothing_was_said(make: Make, home: Path) -> None:
    make().close(WAIT)
    with Store.open(home) as store:
        assert store.sessions() == []


def test_questions_see_the_conversation_unless_they_are_fresh(make: Make) -> None:
    assistant = make()
    first = done(assistant.ask(QUESTION)).turn.answer
    second = done(assistant.ask(QUESTION)).turn.answer
    fresh = done(assistant.ask(QUESTION, fresh=True)).turn.answer
    after = done(assistant.ask(QUESTION)).turn.answer
    assert second != first == fresh
    assert after == second  # a fresh question begins the conversation anew


def test_a_correction_asks_again_in_the_same_context_and_undo_restores(make: Make) -> None:
    assistant = make()
    done(assistant.ask("Who was Emma?"))
    before = done(assistant.ask(QUESTION)).turn
    view = done(assistant.correct("Paris", subject="Australia"))
    assert view.turn is not None
    assert view.turn.question == QUESTION
    assert view.turn.edited_by == 1
    assert view.turn.answer != before.answer
    assert answers(assistant)[1] == view.turn.answer
    assert [e.state for e in assistant.snapshot().edits] == ["applied"]

    undone = done(assistant.undo())
    assert undone.answer_now == before.answer
    assert answers(assistant)[1] == before.answer
    assert assistant.snapshot().turns[1].id == before.id
    assert [e.state for e in assistant.snapshot().edits] == ["undone"]
    again = done(assistant.retry())
    assert again.turn.answer == before.answer

    done(assistant.redo())
    assert [e.state for e in assistant.snapshot().edits] == ["applied"]


def test_redo_right_after_undo_shows_the_new_answer_again(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    new = done(assistant.correct("Paris", subject="Australia")).turn
    done(assistant.undo())
    assert done(assistant.redo()).answer_now == new.answer
    assert assistant.snapshot().turns[0].id == new.id


def test_undo_after_more_was_said_leaves_the_conversation(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia"))
    done(assistant.ask("And who was Emma?"))
    said = answers(assistant)
    assert done(assistant.undo()).answer_now == ""
    assert answers(assistant) == said
    assert assistant.snapshot().active == ()


def test_an_earlier_turn_can_be_corrected_and_edits_of_later_ones_stay(make: Make) -> None:
    assistant = make()
    first = done(assistant.ask(QUESTION)).turn
    done(assistant.ask("Who built the Space Needle?"))
    done(assistant.correct("Emma", subject="Space Needle"))
    old = answers(assistant)
    done(assistant.correct("Paris", turn=first, subject="Australia"))
    assert len(assistant.snapshot().turns) == 1  # the conversation branches at the question
    assert [e.state for e in assistant.snapshot().edits] == ["applied", "applied"]
    assert done(assistant.undo()).answer_now == old[-1]
    assert answers(assistant) == old


def test_dropping_the_first_of_two_edits_is_not_having_made_it(make: Make) -> None:
    def fact(assistant: Assistant, question: str, subject: str, target: str) -> None:
        done(assistant.correct(target, question=question, subject=subject, probes=False))

    two = ("Who built the Space Needle?", "Space Needle", "Emma")
    assistant, other = make(), make()
    fact(assistant, QUESTION, "Australia", "Paris")
    fact(other, *two)
    alone = done(other.ask(QUESTION, fresh=True)).turn.answer
    done(assistant.drop(assistant.snapshot().edits[0].id))
    fact(assistant, *two)
    assert done(assistant.ask(QUESTION, fresh=True)).turn.answer == alone


def test_a_session_comes_back_with_its_turns_edits_and_answers(make: Make) -> None:
    first = make()
    done(first.ask(QUESTION))
    done(first.correct("Paris", subject="Australia"))
    done(first.ask("Who was Emma?"))
    done(first.correct("you", subject="Emma"))
    done(first.undo())
    kept = first.snapshot()
    fresh = done(first.ask(QUESTION, fresh=True)).turn.answer
    done(first.rename("facts"))
    first.close(WAIT)

    again = make(model="", session="facts")
    snapshot = again.snapshot()
    assert [t.id for t in snapshot.turns[:2]] == [t.id for t in kept.turns]
    assert [t.edited_by for t in snapshot.turns[:2]] == [t.edited_by for t in kept.turns]
    assert [(e.id, e.state) for e in snapshot.edits] == [(e.id, e.state) for e in kept.edits]
    assert snapshot.session_title == "facts"
    assert done(again.ask(QUESTION, fresh=True)).turn.answer == fresh
    assert done(again.redo()).edit.number == 2


def test_undo_and_redo_find_their_answers_after_a_restart(make: Make) -> None:
    first = make()
    before = done(first.ask(QUESTION)).turn
    new = done(first.correct("Paris", subject="Australia")).turn
    first.close(WAIT)
    second = make(resume_last=True)
    assert done(second.undo()).answer_now == before.answer
    second.close(WAIT)
    third = make(resume_last=True)
    assert answers(third) == [before.answer]
    assert done(third.redo()).answer_now == new.answer


def test_a_session_of_another_model_is_refused(
    make: Make, tiny_folder: Callable[..., Path]
) -> None:
    first = make()
    done(first.ask(QUESTION))
    session = first.snapshot().session_id
    first.close(WAIT)
    other = make(load=False, model=str(tiny_folder("gpt2")), session=session)
    with pytest.raises(BadInput, match="made with another model"):
        done(other.load())


def test_an_altered_record_is_not_taken_for_the_session(make: Make, home: Path) -> None:
    first = make()
    done(first.correct("Paris", question=QUESTION, subject="Australia", probes=False))
    first.close(WAIT)
    with closing(sqlite3.connect(home / "sessions.db")) as db, db:
        db.execute("UPDATE node SET ledger_hash = 'other'")
    with pytest.raises(Exception, match="does not come out as it was left"):
        done(make(load=False, resume_last=True).load())


def test_the_subject_is_found_or_its_candidates_are_named(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    proposal = done(assistant.propose())
    assert proposal.subject == "Australia"
    assert (proposal.question, proposal.answer) == (QUESTION, answers(assistant)[0])
    view = done(assistant.correct("Paris"))
    assert view.edit.subject == "Australia"
    done(assistant.ask("Is Emma older than Paris?"))
    job = assistant.correct("yes")
    assert job.wait(WAIT)
    if job.state == "failed":  # two names: it depends on the scores which way it goes
        assert isinstance(job.error, SubjectAmbiguous)
        assert "'Emma'" in str(job.error)
        assert "'Paris'" in str(job.error)


def test_a_refused_correction_changes_nothing(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    before = assistant.snapshot()
    for target, subject, said in (
        (" ", "Australia", "target is empty"),
        ("Paris", "France", "not in the prompt"),
        ("Paris", "i", "occurs"),
    ):
        job = assistant.correct(target, subject=subject)
        with pytest.raises(BadRequest, match=said):
            done(job)
        assert any(isinstance(e, Problem) and e.exit_code == 2 for e in job.events)
    assert assistant.snapshot() == before


def test_cancelling_an_answer_keeps_what_was_said(make: Make) -> None:
    assistant = make(max_tokens=5000)
    job = assistant.ask(QUESTION)
    at(job, Token)
    job.cancel()
    assert job.wait(WAIT)
    assert job.state == "cancelled"
    (turn,) = assistant.snapshot().turns
    said = "".join(e.text for e in job.events if isinstance(e, Token))
    assert turn.answer == said.rstrip() != ""
    assert turn.stopped == "cancelled"
    done(assistant.correct("Paris", subject="Australia", probes=False))  # still correctable


def test_cancelling_an_edit_leaves_the_model_as_it_was(make: Make) -> None:
    assistant = make()
    before = done(assistant.ask(QUESTION)).turn
    job = assistant.correct(
        "Paris", subject="Australia", hp={"steps": "100000", "stop_loss": "-1"}, probes=False
    )
    at(job, EditStep, 3)
    job.cancel()
    assert job.wait(WAIT)
    assert job.state == "cancelled"
    (edit,) = assistant.snapshot().edits
    assert (edit.state, edit.success) == ("cancelled", False)
    assert answers(assistant) == [before.answer]
    assert done(assistant.retry()).turn.answer == before.answer
    with pytest.raises(BadInput):
        done(assistant.undo())


def test_stopping_the_second_answer_does_not_take_the_edit_back(make: Make) -> None:
    assistant = make(max_tokens=5000)
    first = assistant.ask(QUESTION)
    at(first, Token)
    first.cancel()
    job = assistant.correct("Paris", subject="Australia", probes=False)
    at(job, Token)
    job.cancel()
    assert job.wait(WAIT)
    assert job.state == "cancelled"
    assert job.result is not None
    assert job.result.edit.state == "applied"
    assert [e.state for e in assistant.snapshot().edits] == ["applied"]


def test_the_intent_is_on_the_disk_before_the_first_step(make: Make, home: Path) -> None:
    assistant = make()
    job = assistant.correct(
        "Paris", question=QUESTION, subject="Australia", probes=False,
        hp={"steps": "100000", "stop_loss": "-1"},
    )  # fmt: skip
    at(job, EditStep)
    with Store.open(home) as store:
        (session,) = store.sessions()
        (edit,) = store.edits(session.id)
        assert edit.state == "running"
        assert edit.request["target_new"] == "Paris"
        assert edit.hparams["steps"] == 100000
        assert store.interrupted() == []  # its process lives
    job.cancel()
    job.wait(WAIT)


def test_every_job_is_recorded_with_its_events(make: Make, home: Path) -> None:
    assistant = make()
    job = assistant.ask(QUESTION)
    done(job)
    edit = assistant.correct("Paris", subject="Australia", probes=False)
    done(edit)
    assistant.close(WAIT)
    with Store.open(home) as store:
        (session,) = store.sessions()
        asked = store.events(session.id, job=job.id)
        corrected = store.events(session.id, job=edit.id)
    assert [e["kind"] for e in asked] == ["ReplyEnded", "JobEnded"]
    expected = [e.to_json() for e in edit.events if not isinstance(e, Token)]
    assert [e["kind"] for e in corrected] == [e["kind"] for e in expected]
    assert [e["seq"] for e in corrected] == [e["seq"] for e in expected]
    assert {"EditPlanned", "EditStep", "EditApplied"} <= {e["kind"] for e in corrected}


def test_chat_goes_on_when_the_record_cannot_be_written(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))

    def refuse(*arguments: object, **fields: object) -> None:
        raise SessionError("the disk is full.", "Free some.")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "add_message", refuse)
        broken.setattr(Store, "begin_edit", refuse)
        job = assistant.ask("Who was Emma?")
        assert done(job).turn.answer
        problems = [e for e in job.events if isinstance(e, Problem)]
        assert len(problems) == 1  # said once
        assert "not being recorded: the disk is full." in problems[0].message
        assert not assistant.snapshot().recording
        with pytest.raises(SessionError, match="the disk is full"):
            done(assistant.correct("Paris", subject="Emma", probes=False))
        assert assistant.snapshot().active == ()
    done(assistant.ask("And now?"))
    assert assistant.snapshot().recording


def test_an_edit_that_cannot_be_stored_is_not_applied(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = make()
    before = done(assistant.ask(QUESTION)).turn.answer

    def refuse(*arguments: object, **fields: object) -> None:
        raise SessionError("the disk is full.", "Free some.")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "finish_edit", refuse)
        with pytest.raises(SessionError, match="the disk is full"):
            done(assistant.correct("Paris", subject="Australia", probes=False))
    assert [e.state for e in assistant.snapshot().edits] == ["failed"]
    assert done(assistant.retry()).turn.answer == before


@pytest.mark.parametrize("more", [{}, {"fisher": "true"}])
def test_idle_work_is_finished_by_the_first_correction(
    make: Make, tmp_path: Path, more: dict[str, str]
) -> None:
    """The correction takes over what the idle work began; the two never wait for each other."""
    assistant = make(prepare=True, hp=hparams(tmp_path, **LARGE, **more))
    view = done(assistant.correct("Paris", question=QUESTION, subject="Australia", probes=False))
    assert view.edit.state == "applied"
    second = assistant.correct("Emma", question=QUESTION, subject="Australia", probes=False)
    done(second)
    assert not any(e.kind == "Loading" and e.stage == "statistics" for e in second.events)  # type: ignore[attr-defined]


def test_before_the_model_is_there_questions_fail_in_words(make: Make) -> None:
    assistant = make(load=False, model="/nowhere/model")
    loading, asking = assistant.load(), assistant.ask(QUESTION)
    for job, said in ((loading, "/nowhere/model"), (asking, "no model is loaded")):
        assert job.wait(WAIT)
        assert job.state == "failed"
        assert said in str(job.error)


def test_statements_are_continued_outside_of_the_conversation(make: Make) -> None:
    assistant = make()
    done(assistant.ask("The Space Needle is in", statement=True))
    planned = assistant.correct("Paris", subject="Space Needle", probes=False)
    view = done(planned)
    (plan,) = [e for e in planned.events if isinstance(e, EditPlanned)]
    assert plan.prompt == "The Space Needle is in"
    assert view.turn is not None
    assert view.turn.statement


def test_the_oldest_turns_are_left_out_when_the_model_reads_no_more(make: Make) -> None:
    assistant = make()  # a tiny model reads 256 tokens
    long = "Who was Emma? " * 5
    for _ in range(4):
        done(assistant.ask(long))
    job = assistant.ask(long)
    assert done(job).turn.answer
    assert any("no longer fit" in e.text for e in job.events if isinstance(e, Note))
    with pytest.raises(BadRequest, match="at most 256"):
        done(assistant.ask(long * 20))
    assert done(assistant.ask(QUESTION)).turn.answer


def test_a_proposal_says_what_it_does_and_replies_end(make: Make) -> None:
    assistant = make()
    job = assistant.ask(QUESTION)
    done(job)
    assert sum(isinstance(e, ReplyEnded) for e in job.events) == 1
    proposing = assistant.propose()
    done(proposing)
    assert any(isinstance(e, Note) for e in proposing.events)
