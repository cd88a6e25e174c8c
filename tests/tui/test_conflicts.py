"""Two edits of one question: the later one acts, the earlier one comes back exactly."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Opened
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scenes import ask, fix, settle
from test_chat import texts

from engine.edit import Edit
from engine.ledger import Ledger
from engine.patches import LowRank
from engine.requests import Request
from sessions import EditRow, PatchRecord, Store
from tests.cli.small import LARGE, QUESTION, hparams
from tui.assistant import Assistant, Options
from tui.commands_edits import edit_row
from tui.plain import run_lines
from tui.timeline import mark, turns_at
from tui.wording import shifted, superseding

AGAIN = "what is the capital of  Australia"  # the same question, written otherwise
OTHER = "Who built the Space Needle?"
QUESTIONS = (QUESTION, OTHER, "Who was Emma?")


class Both(RuleBasedStateMachine):
    """The engine's ledger and the store are told the same; neither knows of the other."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name))
        model = self.store.add_model("tiny", "here", "f", "float32")
        self.session = self.store.create_session(model, method="none").id
        self.ledger = Ledger()
        self.all: dict[str, Edit] = {}
        self.before: tuple[Any, ...] | None = None  # what acted before the last step, an edit

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(question=st.sampled_from(QUESTIONS))
    def edit(self, question: str) -> None:
        name = f"edit-{len(self.all):04d}"
        request = Request(prompt=question, target_new=name, chat=True)
        made = Edit(
            method="none",
            requests=(request,),
            patches=(LowRank("site", torch.ones(2, 1), torch.ones(1, 3)),),
            hparams={},
            supersedes=tuple(e.id for e in self.ledger.rivals(request)),
            id=name,
        )
        before = self.ledger.patches()
        node = self.store.begin_edit(
            self.session, edit_id=name, method="none", hparams={}, request=request.to_json()
        )
        self.all[name] = made
        self.ledger.apply(made)
        body, tensors = made.save()
        self.store.finish_edit(
            node.id, patches=[PatchRecord(kind="low-rank", site="site")], tensors=tensors,
            edit=body, before={}, after={}, success=True, verdict="", metrics={}, seconds={},
            peak_memory=0, versions={}, ledger_hash=self.ledger.fingerprint(),
        )  # fmt: skip
        self.before = before

    def _mark(self, action: str, edit: Edit) -> None:
        turns = turns_at(self.store, self.session)
        mark(self.store, self.session, action, edit.id, self.ledger.fingerprint(), turns)
        self.before = None

    @precondition(lambda self: self.ledger.edits)
    @rule()
    def undo(self) -> None:
        edit = self.ledger.undo()
        assert self.before in (None, self.ledger.patches()), "undo brings the first back"
        self._mark("undo", edit)

    @precondition(lambda self: self.ledger.undone)
    @rule()
    def redo(self) -> None:
        self._mark("redo", self.ledger.redo())

    @precondition(lambda self: self.ledger.edits)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([e.id for e in self.ledger.edits]))
        self._mark("drop", self.ledger.drop(name))

    @invariant()
    def they_agree(self) -> None:
        active = self.store.active_edits(self.session)
        superseded = self.store.superseded(self.session)
        assert [e.id for e in active] == [e.id for e in self.ledger.edits]
        assert superseded == self.ledger.superseded()
        acting = [e.id for e in active if e.id not in superseded]
        assert acting == [e.id for e in self.ledger.acting]
        assert self.store.sessions()[0].edits == len(acting)
        undone = self.store.undone_edits(self.session)
        resumed = Ledger(map(self._loaded, active), map(self._loaded, undone))
        assert [e.id for e in resumed.acting] == acting
        assert resumed.fingerprint() == self.ledger.fingerprint()

    def _loaded(self, row: EditRow) -> Edit:
        return Edit.load(row.body, self.store.tensors(row))

    @invariant()
    def one_edit_of_a_question_acts(self) -> None:
        standing = {e.requests[0].prompt for e in self.ledger.edits}
        acting = [e.requests[0].prompt for e in self.ledger.acting]
        assert sorted(acting) == sorted(standing)

    @invariant()
    def it_is_the_last_one_made(self) -> None:
        for edit in self.ledger.acting:
            same = [e.id for e in self.ledger.edits if e.requests == edit.requests]
            assert edit.id == max(same)


Both.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestLedgerAndStore: Any = Both.TestCase


def test_sameness_of_questions() -> None:
    def key(prompt: str, **more: Any) -> tuple[bool, str]:
        return Request(prompt=prompt, target_new="x", chat=True, **more).key()

    assert key(QUESTION) == key(AGAIN) == key(QUESTION, subject="capital")
    assert key(QUESTION) != key("What is the capital of Austria?")
    assert key(QUESTION) != Request(prompt=QUESTION, target_new="x").key(), "a text to continue"


def test_an_edit_of_several_facts_is_not_superseded_by_one_of_them() -> None:
    facts = tuple(Request(prompt=q, target_new="x", chat=True) for q in QUESTIONS)
    batch = Edit(method="none", requests=facts, patches=(), hparams={})
    assert Ledger([batch]).rivals(facts[0]) == ()


def test_edits_of_earlier_versions_supersede_nothing() -> None:
    body, tensors = Edit(method="none", requests=(), patches=(), hparams={}).save()
    del body["supersedes"]
    assert Edit.load(body, tensors).supersedes == ()


# -- on a live model ---------------------------------------------------------------------------

Make = Callable[..., Assistant]


@pytest.fixture
def make(tiny_folder: Callable[..., Path], tmp_path: Path) -> Iterator[Make]:
    made: list[Assistant] = []

    def assistant(**options: Any) -> Assistant:
        base = Options(
            model=str(tiny_folder("llama", chat=True)), dtype="fp32", home=tmp_path / "home",
            max_tokens=8, hp=hparams(tmp_path, **LARGE), prepare=False,
        )  # fmt: skip
        made.append(Assistant(dataclasses.replace(base, **options)))
        made[-1].load().value()
        return made[-1]

    yield assistant
    for each in made:
        each.close(60)


def correct(assistant: Assistant, target: str, question: str = QUESTION) -> Any:
    subject = "Space Needle" if question == OTHER else "Australia"
    job = assistant.correct(target, question=question, subject=subject, probes=False)
    return job.value()


def logits(assistant: Assistant) -> torch.Tensor:
    """Next-token logits of a few prompts, on the model as it is now."""
    lm, ledger = assistant._conversation.ready()
    with lm.active(ledger.patches()):
        return lm.logits([lm.prompt(q, chat=True) for q in (*QUESTIONS, AGAIN)])


def test_the_first_edit_comes_back_bit_for_bit(make: Make) -> None:
    assistant = make()
    correct(assistant, "Emma", OTHER)
    correct(assistant, "Paris")
    first = logits(assistant)
    view = correct(assistant, "you", AGAIN)
    second = logits(assistant)
    assert not torch.equal(first, second)
    assert [e.number for e in view.superseded] == [2]
    assert superseding(view) == (
        "It supersedes edit #2 (Australia → Paris), made for the same question, which "
        "does not act while #3 stands."
    )
    states = [(e.state, e.superseded_by) for e in assistant.snapshot().edits]
    assert states == [("applied", 0), ("superseded", 3), ("applied", 0)]
    assert [e.number for e in assistant.snapshot().active] == [1, 3]

    undone = assistant.undo().value()
    assert torch.equal(logits(assistant), first)
    assert [e.number for e in undone.back] == [2]
    assert shifted(undone) == "Edit #2 (Australia → Paris) acts again."
    redone = assistant.redo().value()
    assert torch.equal(logits(assistant), second)
    assert shifted(redone) == "Edit #2 (Australia → Paris) is superseded by #3 again."
    assistant.drop(view.edit.id).value()
    assert torch.equal(logits(assistant), first)


def test_the_second_is_what_it_would_be_without_the_first(make: Make) -> None:
    """Computed with the first one inactive, and acting without it."""
    assistant = make()
    correct(assistant, "Paris")
    correct(assistant, "you")
    superseding_it = logits(assistant)
    alone = make()
    correct(alone, "you")
    assert torch.equal(logits(alone), superseding_it)


def test_a_superseded_edit_can_be_dropped_and_comes_back_superseded(make: Make) -> None:
    assistant = make()
    first = correct(assistant, "Paris").edit
    correct(assistant, "you")
    both = logits(assistant)
    dropped = assistant.drop(first.id).value()
    assert (dropped.back, dropped.out) == ((), ())
    assert torch.equal(logits(assistant), both)
    assistant.redo().value()
    assert torch.equal(logits(assistant), both), "the later edit still acts"
    rows = [edit_row(e)[:2] for e in assistant.snapshot().edits]
    assert rows == [("1", "superseded by #2"), ("2", "on")]


def test_a_session_comes_back_with_what_was_superseded(make: Make) -> None:
    assistant = make()
    correct(assistant, "Paris")
    first = logits(assistant)
    correct(assistant, "you")
    second = logits(assistant)
    assistant.close(60)
    again = make(resume_last=True)
    assert torch.equal(logits(again), second)
    assert [e.superseded_by for e in again.snapshot().edits] == [2, 0]
    again.undo().value()
    assert torch.equal(logits(again), first)


# -- what the front ends say -------------------------------------------------------------------


def test_what_is_solved_again_is_said_to_hold_the_facts(make: Make, tmp_path: Path) -> None:
    assistant = make()
    correct(assistant, "Emma", OTHER)
    correct(assistant, "Paris")
    small = {"text": str(tmp_path / "text.txt"), "tokens": "2000"}
    view = assistant.resolve(small).value()
    assert superseding(view) == (
        "It holds the facts of edit #1 (Space Needle → Emma) and edit #2 (Australia → Paris), "
        "which do not act while #3 stands."
    )
    out = io.StringIO()
    lines = ["/resolve", QUESTION, "/fix Australia => Paris", "/resolve many", "/resolve fit all"]
    run_lines(make(), lines, out=out, err=out)
    assert "there is no edit to solve again." in out.getvalue()
    assert "'many' is no number from 1 on." in out.getvalue()
    assert "'all' is no number from 1 on." in out.getvalue()


@pytest.mark.parametrize(
    ("argument", "hp"),
    [("", {}), ("2", {"again": "2"}), ("fit", {"fit": "100"}), ("fit  30", {"fit": "30"})],
)
def test_how_to_solve_again_can_be_said(
    make: Make, argument: str, hp: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    solve = Assistant.resolve

    def noted(assistant: Assistant, given: dict[str, str]) -> Any:
        seen.append(given)
        return solve(assistant)  # one edit: it takes two

    monkeypatch.setattr(Assistant, "resolve", noted)
    lines = [QUESTION, "/fix Australia => Paris", f"/resolve {argument}"]
    run_lines(make(), lines, out=io.StringIO(), err=io.StringIO())
    assert seen == [hp]


def test_plain_mode_says_what_is_superseded_and_what_comes_back(make: Make) -> None:
    out, err = io.StringIO(), io.StringIO()
    lines = [QUESTION, "/fix Australia => Paris", "/fix Australia => you", "/edits", "/undo"]
    run_lines(make(), lines, out=out, err=err)
    said = out.getvalue()
    assert "It supersedes edit #1 (Australia → Paris), made for the same question" in said
    assert "\n1  superseded by #2  r-rome  Australia → Paris" in said
    assert "Undone: edit #2 (Australia → you). Edit #1 (Australia → Paris) acts again." in said


async def test_the_screen_says_it_too(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await fix(pilot, "Perth")
        await settle(pilot)
        assert "It supersedes edit #1 (Australia → Canberra)" in texts(pilot)[-1]
        await pilot.press("f3")
        await settle(pilot)
        assert "Edit #1 (Australia → Canberra) acts again." in texts(pilot)[-1]
