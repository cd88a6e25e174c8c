"""The assistant on a tiny model: turns, corrections, undo, failures, cancelling."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_chat import WAIT, Make, answers, at, done

from engine.errors import BadInput, BadRequest, SubjectAmbiguous
from engine.events import EditPlanned, EditStep, Note, Problem, ReplyEnded, Token
from tests.cli.small import LARGE, QUESTION, hparams
from tui.assistant import Assistant


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
