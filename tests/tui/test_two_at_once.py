"""A session that two llm-edits have open, or two machines; a record that cannot be written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_past import checked, logits
from tiny_chat import Make, answers, done

from engine.events import Problem
from sessions.errors import SessionMoved, StoreLocked
from sessions.store import Store
from tests.cli.small import QUESTION, locked_at
from tui.timeline import turns_at

OTHER = "Where is the Space Needle?"


def test_edits_that_another_llm_edit_takes_off_are_not_built_upon(make: Make) -> None:
    chat = make()
    done(chat.ask(QUESTION))
    fresh = logits(chat)
    done(chat.correct("Paris", subject="Australia", probes=False))
    session = chat.snapshot().session_id
    beside = make(session=session)
    done(beside.undo())

    with pytest.raises(SessionMoved, match="Open the session again"):
        done(chat.correct("Rome", question=OTHER, subject="the Space Needle", probes=False))
    asking = chat.ask(OTHER)
    assert done(asking).turn.answer, "one can still talk"
    problems = [event for event in asking.events if isinstance(event, Problem)]
    assert "another llm-edit has changed the edits" in problems[0].message
    assert [e.state for e in beside.snapshot().edits] == ["undone"]

    assert done(chat.open(session)).active == ()
    assert torch.equal(logits(chat), fresh)
    done(chat.correct("Rome", question=OTHER, subject="the Space Needle", probes=False))
    checked(chat)
    again = make(session=session)
    assert torch.equal(logits(again), logits(chat))


def test_what_is_asked_in_two_places_becomes_two_branches(make: Make) -> None:
    chat = make()
    done(chat.ask(QUESTION))
    session = chat.snapshot().session_id
    beside = make(session=session)
    done(beside.ask(OTHER))
    done(chat.ask("Who was Emma?"))
    done(chat.correct("a cat", subject="Emma", probes=False))
    assert [t.question for t in chat.snapshot().turns] == [QUESTION, "Who was Emma?"]
    assert [t.question for t in beside.snapshot().turns] == [QUESTION, OTHER]
    with Store.open(chat.options.home) as store:
        assert [t.question for t in turns_at(store, session)] == [QUESTION, "Who was Emma?"]
    checked(chat)


def test_an_answer_is_not_recorded_as_that_of_another_question(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = make()
    done(chat.ask(QUESTION))
    first = answers(chat)
    real = Store.add_message

    def locked(self: Store, session: str, role: str, *rest: Any, **more: Any) -> Any:
        if role == "user":
            raise StoreLocked("it is locked.")
        return real(self, session, role, *rest, **more)

    monkeypatch.setattr(Store, "add_message", locked)
    done(chat.ask(OTHER))
    assert len(answers(chat)) == 2
    with Store.open(chat.options.home) as store:
        recorded = turns_at(store, chat.snapshot().session_id)
    assert [(t.question, t.answer) for t in recorded] == [(QUESTION, first[0])]


def test_undo_takes_several_edits_off_or_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = make()
    for question, subject in ((QUESTION, "Australia"), (OTHER, "the Space Needle")):
        done(chat.correct("Paris", question=question, subject=subject, probes=False))
    both = logits(chat)
    with monkeypatch.context() as broken:
        broken.setattr(Store, "add_mark", locked_at(2))
        with pytest.raises(StoreLocked):
            done(chat.undo(2))
    assert torch.equal(logits(chat), both)
    checked(chat)
    assert [edit.number for edit in done(chat.undo(2)).edits] == [2, 1]
    checked(chat)


def test_the_method_that_was_chosen_is_the_sessions(make: Make) -> None:
    chat = make(method="r-rome")
    done(chat.ask(QUESTION))
    chat.set_method("ft-m")
    assert chat.snapshot().method == "ft-m"
    session = chat.snapshot().session_id
    chat.close(60)
    again = make(session=session, method="")
    assert again.snapshot().method == "ft-m"
    again.close(60)
    assert make(method="r-rome").snapshot().method == "r-rome"


def test_what_happens_after_another_session_was_opened_belongs_to_it(make: Make) -> None:
    first = make()
    done(first.ask(QUESTION))
    done(first.correct("Paris", subject="Australia", probes=False))
    session = first.snapshot().session_id
    first.close(60)
    chat = make()
    done(chat.ask(OTHER))
    done(chat.open(session))
    done(chat.undo())
    chat.close(60)
    assert not chat.snapshot().trouble
    with Store.open(chat.options.home) as store:
        assert "EditUndone" in [event["kind"] for event in store.events(session)]


def test_a_session_goes_on_in_the_precision_it_was_made_in(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.hardware.cpu_has_bf16", lambda: False)
    first = make(dtype="auto")
    done(first.ask(QUESTION))
    assert first.snapshot().dtype == "float32"
    monkeypatch.setattr("engine.hardware.cpu_has_bf16", lambda: True)  # as on another machine
    session = first.snapshot().session_id
    assert make(dtype="auto", session=session).snapshot().dtype == "float32"
    assert make(dtype="bf16", session=session).snapshot().dtype == "bfloat16"
    assert make(dtype="auto").snapshot().dtype == "bfloat16"
