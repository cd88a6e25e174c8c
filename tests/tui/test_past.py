"""Branches, undo to a place, other sessions: a tiny model, and its record."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import Make, answers, done

from engine.errors import BadInput
from sessions import bundle
from sessions.store import Store
from tests.cli.small import QUESTION
from tui.assistant import Assistant
from tui.timeline_text import plain_lines
from tui.tree import Timeline, read_timeline


def timeline(assistant: Assistant) -> Timeline:
    return done(assistant.archive.timeline(assistant.snapshot().session_id))


def logits(assistant: Assistant) -> torch.Tensor:
    """Of the live model with the edits in force."""
    conversation = assistant._conversation
    lm, ledger = conversation.ready()
    with lm.active(ledger.patches()):
        return lm.logits([lm.render(QUESTION)])


def checked(assistant: Assistant) -> None:
    """The record gives the state of the live model."""
    conversation = assistant._conversation
    _, ledger = conversation.ready()
    session = assistant.snapshot().session_id
    with Store.open(assistant.options.home) as store:
        assert [e.id for e in store.active_edits(session)] == [e.id for e in ledger.edits]
        assert [e.id for e in store.undone_edits(session)] == [e.id for e in ledger.undone]
        assert store.path(session)[-1].ledger_hash == ledger.fingerprint()


def talked(assistant: Assistant) -> dict[str, Any]:
    """Three questions; an edit of the second, and one of the third."""
    parts: dict[str, Any] = {"fresh": logits(assistant)}
    done(assistant.ask("Who was Emma?"))
    done(assistant.ask(QUESTION))
    parts["plain"] = answers(assistant)
    done(assistant.correct("Paris", subject="Australia"))
    parts["one"] = logits(assistant)
    done(assistant.ask("Where is the Space Needle?"))
    done(assistant.correct("Rome", subject="the Space Needle"))
    parts["two"] = logits(assistant)
    return parts


def test_the_timeline_shows_what_left_the_way_indented(make: Make) -> None:
    assistant = make()
    talked(assistant)
    lines = timeline(assistant).nodes
    assert [(n.kind, n.depth) for n in lines] == [
        ("user", 0), ("assistant", 0), ("user", 0), ("assistant", 1), ("edit", 0),
        ("assistant", 0), ("user", 0), ("assistant", 1), ("edit", 0), ("assistant", 0),
    ]  # fmt: skip
    assert [n.here for n in lines] == [n.depth == 0 for n in lines]
    assert [n.tip for n in lines] == [False] * 9 + [True]
    edits = [n.edit for n in lines if n.kind == "edit"]
    assert [(e.number, e.state) for e in edits if e] == [(1, "applied"), (2, "applied")]
    with Store.open(assistant.options.home) as store:
        totals = [row.seconds["total"] for row in store.edits(assistant.snapshot().session_id)]
    assert [n.seconds for n in lines if n.kind == "edit"] == totals


def test_the_timeline_says_what_is_superseded_and_what_is_forgotten(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia"))
    done(assistant.correct("Rome", subject="Australia"))
    done(assistant.ask("Who was Emma?"))
    session, asked = assistant.snapshot().session_id, assistant.snapshot().turns[-1].asked
    with Store.open(assistant.options.home) as store:
        store.forget(session, asked)
    found = timeline(assistant)
    assert [n.text for n in found.nodes if n.forgotten] == [
        "Who was Emma?", assistant.snapshot().turns[-1].answer
    ]  # fmt: skip
    assert (found.nodes[-1].kind, found.nodes[-1].text) == ("forget", "Who was Emma?")
    lines = plain_lines(found)
    (first,) = [line for line in lines if "◆ #1" in line]
    assert "superseded by #2" in first
    assert [line for line in lines if "⌫ forgotten]" in line]
    assert "⌫ forgot: Who was Emma?" in lines[-1]


def test_three_undos_in_a_row_restore_the_model_and_three_redos_the_edits(make: Make) -> None:
    assistant = make()
    lm, _ = assistant._conversation.ready()
    weights = {name: hashlib.sha256(t.numpy().tobytes()) for name, t in _tensors(lm)}
    done(assistant.ask(QUESTION))
    said = [logits(assistant)]
    for target in ("Paris", "Rome", "Oslo"):
        done(assistant.correct(target, subject="Australia", probes=False))
        said.append(logits(assistant))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(said))
    for there in reversed(said[:-1]):
        done(assistant.undo())
        assert torch.equal(logits(assistant), there)
        checked(assistant)
    for there in said[1:]:
        done(assistant.redo())
        assert torch.equal(logits(assistant), there)
        checked(assistant)
    for name, tensor in _tensors(lm):
        assert hashlib.sha256(tensor.numpy().tobytes()).digest() == weights[name].digest(), name


def _tensors(lm: Any) -> list[tuple[str, torch.Tensor]]:
    return list(lm.model.state_dict().items())


def test_the_archive_writes_a_session_into_a_bundle(make: Make, tmp_path: Path) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    done(assistant.correct("Paris", subject="Australia"))
    session = assistant.snapshot().session_id
    path = tmp_path / "facts.llmedit"
    assert done(assistant.archive.export(session, path)) == path
    read = bundle.read(path)
    assert [edit.request["target_new"] for edit in read.edits] == ["Paris"]
    with pytest.raises(BadInput, match="exists already"):
        done(assistant.archive.export(session, path))
    with pytest.raises(BadInput, match=r"End it in \.llmedit"):
        done(assistant.archive.export(session, tmp_path / "facts.txt"))


def test_a_branch_takes_the_edits_that_were_in_force_there(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    first = next(n for n in timeline(assistant).nodes if n.kind == "assistant")
    moved = done(assistant.branch(first.id))
    assert (moved.turns, moved.active) == (1, ())
    assert answers(assistant) == parts["plain"][:1]
    assert torch.equal(logits(assistant), parts["fresh"])
    assert [e.state for e in assistant.snapshot().edits] == ["elsewhere", "elsewhere"]
    checked(assistant)
    done(assistant.ask(QUESTION))
    assert answers(assistant) == parts["plain"], "the same question in the same state"
    checked(assistant)
    with pytest.raises(BadInput, match="no edit to redo"):
        done(assistant.redo())

    new = next(n for n in reversed(timeline(assistant).nodes) if n.here)
    edited = [n for n in timeline(assistant).nodes if n.kind == "assistant" and not n.here]
    done(assistant.branch(edited[-1].id))
    assert torch.equal(logits(assistant), parts["two"]), "and back, with both edits"
    assert len(answers(assistant)) == 3
    checked(assistant)
    done(assistant.branch(new.short))
    assert torch.equal(logits(assistant), parts["fresh"])


def test_a_branch_at_a_question_can_be_asked_again(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    question = timeline(assistant).nodes[2]
    moved = done(assistant.branch(question.id))
    assert not moved.answered
    assert [t.question for t in assistant.snapshot().turns] == ["Who was Emma?", QUESTION]
    done(assistant.retry())
    assert answers(assistant) == parts["plain"]
    checked(assistant)


def test_a_branch_survives_a_restart(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    (middle,) = [n for n in timeline(assistant).nodes if n.here and n.kind == "assistant"][1:2]
    done(assistant.branch(middle.id))
    assert torch.equal(logits(assistant), parts["one"])
    session = assistant.snapshot().session_id
    assistant.close()
    again = make(session=session)
    assert torch.equal(logits(again), parts["one"])
    assert len(answers(again)) == 2


def test_only_messages_are_branched_from_and_only_known_ones(make: Make) -> None:
    assistant = make()
    talked(assistant)
    edit = next(n for n in timeline(assistant).nodes if n.kind == "edit")
    with pytest.raises(BadInput, match="begins at a question or an answer"):
        done(assistant.branch(edit.id))
    with pytest.raises(BadInput, match="no message 'zzzz'"):
        done(assistant.branch("zzzz"))
    checked(assistant)


def test_undo_to_a_message_says_first_what_it_will_do(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    first = timeline(assistant).nodes[1]
    plan = done(assistant.plan(first.id))
    assert [e.number for e in plan.edits] == [2, 1]
    assert (plan.node, plan.leaving) == (first.id, 4)
    assert torch.equal(logits(assistant), parts["two"]), "a plan changes nothing"

    moved = done(assistant.undo_to(first.id))
    assert [e.number for e in moved.undone] == [2, 1]
    assert answers(assistant) == parts["plain"][:1]
    assert torch.equal(logits(assistant), parts["fresh"])
    assert [e.state for e in assistant.snapshot().edits] == ["undone", "undone"]
    checked(assistant)
    done(assistant.redo())
    assert torch.equal(logits(assistant), parts["one"])
    done(assistant.redo())
    assert torch.equal(logits(assistant), parts["two"])
    checked(assistant)


def test_undo_at_an_edit_takes_it_off_too_and_brings_the_old_answer_back(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    edit = next(n for n in timeline(assistant).nodes if n.kind == "edit")
    done(assistant.undo_to(edit.id))
    assert answers(assistant) == parts["plain"]
    assert torch.equal(logits(assistant), parts["fresh"])
    checked(assistant)
    with pytest.raises(BadInput, match="no edit was made since"):
        done(assistant.undo_to(edit.id))


def test_another_session_of_the_model_is_opened_with_its_edits(make: Make) -> None:
    assistant = make()
    parts = talked(assistant)
    first = assistant.snapshot().session_id
    assistant.close()
    other = make()
    done(other.ask("The tower"))
    second = other.snapshot().session_id
    assert torch.equal(logits(other), parts["fresh"])

    moved = done(other.open(first))
    assert (moved.turns, len(moved.active)) == (3, 2)
    assert other.snapshot().session_id == first
    assert torch.equal(logits(other), parts["two"])
    done(other.undo())
    assert torch.equal(logits(other), parts["one"])
    checked(other)
    done(other.open(second))
    assert [t.question for t in other.snapshot().turns] == ["The tower"]
    assert torch.equal(logits(other), parts["fresh"])
    with pytest.raises(BadInput, match="open already"):
        done(other.open(second))


def test_a_session_of_another_model_is_not_opened(make: Make) -> None:
    assistant = make("gpt2")
    done(assistant.ask("The tower"))
    session = assistant.snapshot().session_id
    assistant.close()
    other = make()
    done(other.ask("The tower"))
    with pytest.raises(BadInput, match=r"another model \(.*gpt2.*\). llm-edit chat --session"):
        done(other.open(session))
    assert len(answers(other)) == 1


def test_failed_edits_and_what_is_not_done_stay_off_the_way(make: Make, tmp_path: Path) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    store = assistant._conversation.recorder.store
    assert store is not None
    done(assistant.correct("Paris", subject="Australia"))
    done(assistant.undo())
    session = assistant.snapshot().session_id
    with Store.open(assistant.options.home) as reader:
        node = reader.begin_edit(
            session, edit_id="f" * 16, method="rome", hparams={}, request={"prompt": "p"}
        )
        reader.fail_edit(node.id, "failed", "no reason")
        lines = read_timeline(reader, session).nodes
    shown = [(n.kind, n.depth, n.edit.state if n.edit else "") for n in lines]
    assert shown == [
        ("user", 0, ""), ("edit", 1, "undone"), ("assistant", 1, ""), ("assistant", 0, ""),
        ("undo", 0, "undone"), ("edit", 1, "failed"),
    ]  # fmt: skip


def test_the_archive_reads_while_the_engine_works(make: Make) -> None:
    assistant = make()
    done(assistant.ask(QUESTION))
    job = assistant.correct("Paris", subject="Australia")
    (row,) = done(assistant.archive.sessions())
    assert row.id == assistant.snapshot().session_id
    assert next(hit.kind for hit in done(assistant.archive.search("Austral"))) == "question"
    done(job)
    assert done(assistant.archive.rename(row.id, " facts ")) == "facts"
    assert done(assistant.archive.delete("facts")) == row.id
    assert done(assistant.archive.sessions()) == []
