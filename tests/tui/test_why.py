"""`/why`: an edit's part in an answer, against the model asked by hand; in words; on the screen."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from conftest import Opened
from scenes import LONG, QUESTION, ask, fix, settle
from test_chat import screen_text, texts
from tiny_chat import Make, done

from engine.errors import BadInput, LLMEditError
from tui.plain import run_lines
from tui.views import EditView, TurnView
from tui.why import InfluenceView, WhyView, told

OTHER = "Where is the Space Needle?"


def by_hand(assistant: Any, question: str, answer: str, edits: list[Any]) -> float:
    """Log-probability of an answer and its ending as the first of a conversation, in nats."""
    from engine.tokens import continuation, target_ids

    lm, _ = assistant._conversation.ready()
    prompt = lm.prompt(question, chat=True)
    turn = next(t for t in assistant._conversation.turns if t.answer == answer)
    if turn.stopped:
        ids = continuation(lm.tokenizer, prompt.glue + answer)
    else:
        ids = target_ids(lm.tokenizer, prompt, answer)
    with lm.active([p for e in edits for p in e.patches]), torch.no_grad():
        out = lm.model(torch.tensor([[*prompt.ids, *ids]])).logits[0].float().log_softmax(-1)
    return sum(float(out[len(prompt.ids) - 1 + i, t]) for i, t in enumerate(ids))


def test_each_edit_is_weighed_in_the_state_that_gave_the_answer(make: Make) -> None:
    assistant = make()
    done(assistant.correct("Paris", question=QUESTION, subject="Australia", probes=False))
    done(assistant.correct("Rome", question=OTHER, subject="Space Needle", probes=False))
    done(assistant.ask(QUESTION))
    done(assistant.undo())  # what acts now is not what acted then
    view = done(assistant.why())
    one, two = sorted(view.influences, key=lambda part: part.edit.number)
    (turn,) = assistant.snapshot().turns
    assert (view.number, view.turn.answer) == (1, turn.answer)
    ledger = assistant._conversation.ledger
    first, second = *ledger.edits, *ledger.undone
    for part, without in ((one, [second]), (two, [first])):
        both = by_hand(assistant, QUESTION, turn.answer, [first, second])
        assert math.log(part.p_with) == pytest.approx(both, abs=2e-3)
        alone = by_hand(assistant, QUESTION, turn.answer, without)
        assert math.log(part.p_without) == pytest.approx(alone, abs=2e-3)
        assert part.moves == pytest.approx(math.log(part.p_with / part.p_without), abs=1e-6)
    assert (one.edit.state, two.edit.state) == ("applied", "undone")
    assert one.fires >= 1 - 1e-2, "asked its own question it fires as on its own question"
    assert [abs(part.moves) for part in view.influences] == sorted(
        (abs(part.moves) for part in view.influences), reverse=True
    )


def test_an_answer_from_before_the_first_edit_owes_nothing_to_edits(make: Make) -> None:
    assistant = make()
    done(assistant.ask(OTHER))
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia", probes=False))
    assert done(assistant.why(1)).influences == ()
    assert [part.edit.number for part in done(assistant.why(2)).influences] == [1]
    with pytest.raises(BadInput, match="there is no answer 3: they count from 1 to 2"):
        done(assistant.why(3))


def test_without_an_answer_there_is_nothing_to_explain(make: Make) -> None:
    with pytest.raises(LLMEditError, match="there is no answer yet"):
        done(make().why())


# -- in words ----------------------------------------------------------------------------------


def part(number: int, moves: float, **more: Any) -> InfluenceView:
    edit = EditView(
        id=f"e{number}", number=number, method="r-rome", subject="Australia", question=QUESTION,
        target="Paris", state=more.pop("state", "applied"),
    )  # fmt: skip
    given = {"fires": 1.0, "token": " Australia", "where": "question", "p_with": 0.9}
    values = {"p_without": 0.9 * math.exp(-moves), "moves": moves} | given | more
    return InfluenceView(edit=edit, **values)


def sentences(*parts: InfluenceView) -> list[str]:
    turn = TurnView(id="t", question=QUESTION, answer="Paris")
    return told(WhyView(number=2, turn=turn, influences=parts))


def test_who_had_a_part_is_said_in_words() -> None:
    head, one, other = sentences(
        part(1, 3.0), part(2, 0.01, fires=0.02, token=" is", where="answer", state="undone")
    )
    assert head == f"Answer 2, “Paris” to “{QUESTION}”: one edit had a part in it."
    assert one == (
        "Edit #1 (Australia → Paris) makes it 20.1 times likelier: P(answer) 0.90 with it, 0.045 "
        "without. Its patch fires: 100 % as strongly as on its own question, at “Australia”."
    )
    assert other == (
        "Edit #2 (Australia → Paris), not in force now, has no part in it: P(answer) 0.90 with "
        "it, 0.89 without. Its patch does not fire: at most 2 % as strongly as on its own "
        "question, at “is” in the answer."
    )


def test_edits_can_hold_an_answer_back_and_have_no_keys() -> None:
    head, one, two = sentences(part(1, -2.0, p_with=0.1), part(2, 30.0, fires=math.nan))
    assert head.endswith(": 2 edits had a part in it, the largest first.")
    assert "makes it 7.39 times less likely" in one
    assert two.endswith("makes it 10^13 times likelier: P(answer) 0.90 with it, 8.4e-14 without.")
    assert "makes it 7,870 times likelier" in sentences(part(1, 8.971))[1]
    (_, three) = sentences(part(1, 900.0))
    assert "makes it 10^391 times likelier: P(answer) 0.90 with it, less than 1e-300 wi" in three


def test_no_edit_and_no_part_are_not_the_same() -> None:
    (none,) = sentences()
    assert none.endswith("no edit was in force. It is the model's own.")
    assert sentences(part(1, 0.0))[0].endswith(": no edit had a part in it.")


def test_the_plain_front_says_it(make: Make) -> None:
    out, err = io.StringIO(), io.StringIO()
    lines = [QUESTION, "/fix Australia => Paris", "/why", "/why 7", "/why x"]
    run_lines(make(), lines, out=out, err=err)
    said = out.getvalue().splitlines()
    place = next(i for i, line in enumerate(said) if line.startswith("Answer 1, “"))
    assert said[place + 1].startswith("Edit #1 (Australia → Paris) ")
    assert "there is no answer 7" in err.getvalue()
    assert "'x' is not the number of an answer" in err.getvalue()


async def test_e_explains_the_chosen_answer(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await ask(pilot, LONG)
        pilot.app.chat.transcript.focus()
        await pilot.pause()
        await pilot.press("home", "e")
        await settle(pilot)
        assert pilot.app.assistant.calls[-1] == ("why", 1)
        assert "makes it 49.4 times likelier" in texts(pilot)[-1]
        assert "makes it 49.4 times" in screen_text(pilot), "what was asked for is in sight"
        await pilot.press("end", "up", "e")
        await settle(pilot)
        assert pilot.app.assistant.calls[-1] == ("why", 2)
