"""Two states of one model, asked the same: on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_past import logits
from tiny_chat import Make, done

from engine.errors import BadInput, UnknownName
from engine.events import Loading
from tests.cli.small import QUESTION
from tui.assistant import Assistant
from tui.compare import CompareView


@pytest.fixture
def edited(make: Make) -> Assistant:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia"))
    return assistant


def ledger(assistant: Assistant) -> list[str]:
    return [e.id for e in assistant._conversation.ready()[1].edits]


def hooks(assistant: Assistant) -> int:
    """Hooks on all modules of the model."""
    lm, _ = assistant._conversation.ready()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


def answer(view: CompareView, text: str) -> tuple[str, str]:
    (row,) = [row for row in view.rows if row.prompt.text == text]
    assert row.a is not None
    assert row.b is not None
    return row.a.answer, row.b.answer


def test_the_unedited_model_against_now(edited: Assistant) -> None:
    before, state = logits(edited), ledger(edited)
    view = done(edited.compare("unedited", "now", ["Who was Emma?"]))
    kinds = [row.prompt.kind for row in view.rows]
    assert kinds[0] == "asked"
    assert kinds[-1] == "free"
    assert {"rephrased", "neighbour"} < set(kinds)
    assert view.whole
    assert (view.a.label, view.b.label) == ("the unedited model", "now (1 edit)")
    assert answer(view, QUESTION)[0] != answer(view, QUESTION)[1]
    top = view.rows[0].b
    assert top is not None
    assert len(top.top) == 10
    assert all(0 <= p <= 1 for _, p in top.top)
    assert torch.equal(logits(edited), before)
    assert ledger(edited) == state
    assert hooks(edited) == 0


def test_what_the_states_say_is_what_a_model_in_them_says(edited: Assistant) -> None:
    """The other state, really gone to by undo, gives the same probabilities."""
    conversation = edited._conversation
    view = done(edited.compare("unedited", "#1"))
    live = logits(edited).float().softmax(-1)[0]
    done(edited.undo())
    undone = logits(edited).float().softmax(-1)[0]
    assert view.rows[0].b is not None
    assert view.rows[0].a is not None
    assert [p for _, p in view.rows[0].b.top] == live.topk(10).values.tolist()
    assert [p for _, p in view.rows[0].a.top] == undone.topk(10).values.tolist()
    assert conversation.ready()[1].edits == ()
    again = done(edited.compare("now", "#1"))
    assert [row.a for row in again.rows] == [row.a for row in view.rows]


def test_a_stopped_comparison_keeps_its_rows_and_leaves_no_trace(edited: Assistant) -> None:
    before, state = logits(edited), ledger(edited)
    job = edited.compare("unedited", "now")
    for event in job.stream():
        if isinstance(event, Loading) and event.done >= 2:
            job.cancel()
    assert job.state == "cancelled"
    partial = job.result
    assert partial is not None
    assert partial.rows[0].b is not None
    assert torch.equal(logits(edited), before)
    assert ledger(edited) == state
    assert hooks(edited) == 0


def test_the_states_that_are_offered(edited: Assistant, make: Make) -> None:
    states = done(edited.states())
    assert [s.ref for s in states] == ["unedited", "#1", "now"]
    session = edited.snapshot().session_id
    edited.close()
    other = make()
    done(other.ask("The tower"))
    assert [s.ref for s in done(other.states())] == ["unedited", "now", f"@{session}"]
    view = done(other.compare("now", f"@{session}"))
    assert answer(view, QUESTION)[0] != answer(view, QUESTION)[1]
    assert ledger(other) == []


def test_equal_states_say_so_and_do_not_differ(edited: Assistant) -> None:
    view = done(edited.compare("#1", "now"))
    assert view.same_edits
    assert all(row.a == row.b for row in view.rows)


def test_without_edits_only_what_is_typed_is_asked(make: Make) -> None:
    assistant = make()
    assert done(assistant.compare("unedited", "now")).rows == ()
    view = done(assistant.compare("unedited", "now", ["Who was Emma?"]))
    assert [row.prompt.kind for row in view.rows] == ["free"]


@pytest.mark.parametrize(
    ("ref", "error", "words"),
    [("#7", UnknownName, "#7"), ("@nobody", Exception, "nobody"), ("odd", UnknownName, "odd")],
)
def test_unknown_states_are_named(
    edited: Assistant, ref: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        done(edited.compare(ref, "now"))


def test_a_session_of_another_model_cannot_be_compared(make: Make) -> None:
    first = make("gpt2")
    done(first.ask("The tower"))
    session = first.snapshot().session_id
    first.close()
    with pytest.raises(BadInput, match="another model"):
        done(make().compare(f"@{session}", "now"))


def test_readings_are_remembered(edited: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    import tui.compare

    done(edited.compare("unedited", "now"))
    asked: list[Any] = []
    real = tui.compare.read

    def read(*args: Any, **options: Any) -> Any:
        asked.append(args)
        return real(*args, **options)

    monkeypatch.setattr(tui.compare, "read", read)
    done(edited.compare("unedited", "now", ["Who was Emma?"]))
    assert len(asked) == 2, "the typed prompt in both states, and nothing else"
