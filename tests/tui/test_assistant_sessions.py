"""The assistant's sessions on a tiny model: recorded, come back to, and unable to be written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tiny_chat import WAIT, Make, answers, at, done

from engine.errors import BadInput
from engine.events import EditStep, Problem, Token
from sessions.errors import SessionError
from sessions.store import Store
from tests.cli.small import QUESTION


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where `make` has its sessions."""
    return tmp_path / "home"


def test_nothing_is_left_behind_by_a_chat_in_which_nothing_was_said(make: Make, home: Path) -> None:
    make().close(WAIT)
    with Store.open(home) as store:
        assert store.sessions() == []


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
