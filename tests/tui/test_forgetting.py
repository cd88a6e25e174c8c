"""`/forget`, `/remember`, `/undo N`: what leaves the conversation and the model, and comes back."""

from __future__ import annotations

import io

import pytest
import torch
from conftest import Opened
from scenes import LONG, ask, settle
from test_chat import texts
from test_past import logits
from tiny_chat import Make, answers, done

from engine.errors import BadInput
from tests.cli.small import QUESTION
from tui.commands_edits import about
from tui.plain import run_lines
from tui.wording import shifted

OTHER = "Where is the Space Needle?"


def test_what_is_forgotten_is_not_in_the_next_prompt(make: Make) -> None:
    assistant = make()
    done(assistant.ask(OTHER))
    done(assistant.ask("Who was Emma?"))
    done(assistant.ask(QUESTION))
    behind_both = answers(assistant)[-1]
    assert done(assistant.forget(1)).question == OTHER
    assert [t.question for t in assistant.snapshot().turns] == ["Who was Emma?", QUESTION]
    alone = make()
    done(alone.ask("Who was Emma?"))
    mine, its = (a._conversation.turns[0] for a in (assistant, alone))
    assert mine.question == its.question
    assert done(assistant.remember()).question == OTHER
    assert [t.question for t in assistant.snapshot().turns] == [OTHER, "Who was Emma?", QUESTION]
    done(assistant.retry())
    assert answers(assistant)[-1] == behind_both


def test_the_last_one_is_forgotten_by_default_and_the_record_knows(make: Make) -> None:
    assistant = make()
    fresh = make()
    done(fresh.ask(QUESTION))
    done(assistant.ask(OTHER))
    done(assistant.forget())
    done(assistant.ask(QUESTION))
    assert answers(assistant) == answers(fresh), "asked as if the other had never been"
    session = assistant.snapshot().session_id
    assistant.close(60)
    again = make(session=session)
    assert [t.question for t in again.snapshot().turns] == [QUESTION]
    done(again.remember())
    assert [t.question for t in again.snapshot().turns] == [OTHER, QUESTION]


def test_edits_stay_when_their_question_is_forgotten(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia", probes=False))
    edited = logits(assistant)
    done(assistant.forget())
    assert torch.equal(logits(assistant), edited)
    assert [e.state for e in assistant.snapshot().edits] == ["applied"]
    done(assistant.undo())
    assert [e.state for e in assistant.snapshot().edits] == ["undone"]
    assert assistant.snapshot().turns == (), "undo does not bring back what was forgotten"


def test_only_what_is_there_can_be_forgotten_or_taken_back(make: Make) -> None:
    assistant = make()
    with pytest.raises(BadInput, match="nothing was asked yet"):
        done(assistant.forget())
    done(assistant.ask(QUESTION))
    with pytest.raises(BadInput, match="there is no answer 2: they count from 1 to 1"):
        done(assistant.forget(2))
    with pytest.raises(BadInput, match="nothing was forgotten"):
        done(assistant.remember())


def test_several_edits_are_undone_at_once_or_none(make: Make) -> None:
    assistant = make()
    fresh = logits(assistant)
    done(assistant.ask(QUESTION))
    plain = answers(assistant)
    done(assistant.correct("Paris", subject="Australia", probes=False))
    one = logits(assistant)
    done(assistant.correct("Rome", subject="Australia", probes=False))
    done(assistant.correct("Emma", question=OTHER, subject="Space Needle", probes=False))
    three = logits(assistant)
    with pytest.raises(BadInput, match="there are only 3 to undo"):
        done(assistant.undo(4))
    assert torch.equal(logits(assistant), three)
    view = done(assistant.undo(2))
    assert [e.number for e in view.edits] == [3, 2]
    assert torch.equal(logits(assistant), one)
    assert shifted(view) == "Edit #1 (Australia → Paris) acts again."
    view = done(assistant.redo(2))
    assert torch.equal(logits(assistant), three)
    assert shifted(view) == "Edit #1 (Australia → Paris) is superseded by #2 again."
    done(assistant.undo(3))
    assert torch.equal(logits(assistant), fresh)
    assert answers(assistant) == plain
    view = done(assistant.redo(3))
    assert torch.equal(logits(assistant), three)
    assert shifted(view) == "Edit #1 (Australia → Paris) is superseded by #2 again."
    with pytest.raises(BadInput, match="there is no edit to redo"):
        done(assistant.redo())


def test_in_plain_mode(make: Make) -> None:
    out, err = io.StringIO(), io.StringIO()
    lines = [
        QUESTION, "/fix Australia => Paris", "/edits 1", "/forget", "/remember", "/undo 2",
        "/undo 0", "/undo 1", "/forget 9", "/forget last", "/edits 4",
    ]  # fmt: skip
    assistant = make()
    run_lines(assistant, lines, out=out, err=err)
    said, wrong = out.getvalue(), err.getvalue()
    (edit,) = assistant.snapshot().edits
    assert f"Edit #1 (r-rome, on): {QUESTION}\nRight answer: Paris\nSubject: Australia\n" in said
    assert about(edit)[-1] == edit.verdict
    assert edit.verdict in said
    assert f"Forgotten: “{QUESTION}” and its answer. /remember takes them back.\n" in said
    assert f"Part of the conversation again: “{QUESTION}”.\n" in said
    assert "Undone: edit #1 (Australia → Paris). No edits remain." in said
    assert "there is only 1 to undo" in wrong
    assert "'0' is no number from 1 on" in wrong
    assert "there is no answer 9" in wrong
    assert "'last' is not the number of an answer" in wrong
    assert "unknown edit '4'" in wrong


async def test_the_screen_shows_what_is_left(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, LONG)
        await ask(pilot, "/forget 1", wait=False)
        await settle(pilot)
        assert texts(pilot, "user") == [LONG]
        assert "Forgotten" in texts(pilot)[-1]


def test_what_was_forgotten_on_another_branch_is_not_taken_back(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.ask(OTHER))
    done(assistant.forget())
    done(assistant.correct("Paris", subject="Australia", probes=False))
    with pytest.raises(BadInput, match="nothing was forgotten"):
        done(assistant.remember())
    assert [t.question for t in assistant.snapshot().turns] == [QUESTION]
