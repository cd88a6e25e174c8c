"""The ledger against a plain description of what it should do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.edit import Edit
from engine.errors import BadInput, UnknownName
from engine.ledger import Ledger
from engine.patches import LowRank
from engine.requests import Request


def edit(name: str, patches: int = 1) -> Edit:
    request = Request(prompt="Emma is by", target_new=name)
    made = tuple(LowRank(f"site.{i}", torch.ones(2, 1), torch.ones(1, 3)) for i in range(patches))
    return Edit(method="none", requests=(request,), patches=made, hparams={}, id=name)


class LedgerMachine(RuleBasedStateMachine):
    """Names in two lists: what is active, and what can be redone (next one last)."""

    @initialize(start=st.integers(0, 2))
    def begin(self, start: int) -> None:
        self.made = start
        self.all = {f"e{i}": edit(f"e{i}", patches=i % 3) for i in range(start)}
        self.ledger = Ledger(self.all.values())
        self.active = list(self.all)
        self.undone: list[str] = []
        self.seen: dict[str, tuple[str, ...]] = {}

    @rule()
    def apply(self) -> None:
        name = f"e{self.made}"
        self.made += 1
        self.all[name] = edit(name, patches=self.made % 3)
        self.ledger.apply(self.all[name])
        self.active.append(name)
        self.undone = []

    @precondition(lambda self: self.active)
    @rule()
    def undo(self) -> None:
        assert self.ledger.undo() is self.all[self.active[-1]]
        self.undone.append(self.active.pop())

    @precondition(lambda self: self.undone)
    @rule()
    def redo(self) -> None:
        assert self.ledger.redo() is self.all[self.undone[-1]]
        self.active.append(self.undone.pop())

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.active))
        assert self.ledger.drop(name) is self.all[name]
        self.active.remove(name)
        self.undone.append(name)

    @precondition(lambda self: not self.active)
    @rule()
    def nothing_to_undo(self) -> None:
        with pytest.raises(BadInput, match="there is no edit to undo"):
            self.ledger.undo()

    @precondition(lambda self: not self.undone)
    @rule()
    def nothing_to_redo(self) -> None:
        with pytest.raises(BadInput, match="there is no edit to redo"):
            self.ledger.redo()

    @rule()
    def drop_what_is_not_active(self) -> None:
        with pytest.raises(UnknownName, match="unknown active edit 'e999'"):
            self.ledger.drop("e999")
        for name in self.undone:
            with pytest.raises(UnknownName):
                self.ledger.drop(name)

    @invariant()
    def same_lists(self) -> None:
        assert [e.id for e in self.ledger.edits] == self.active
        assert [e.id for e in self.ledger.undone] == self.undone
        patches = [p for name in self.active for p in self.all[name].patches]
        assert [id(p) for p in self.ledger.patches()] == [id(p) for p in patches]

    @invariant()
    def fingerprints_tell_states_apart(self) -> None:
        found = self.ledger.fingerprint()
        assert self.seen.setdefault(found, tuple(self.active)) == tuple(self.active)
        assert (found == "") == (not self.active)


LedgerMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestLedger: Any = LedgerMachine.TestCase


def test_a_fingerprint_is_of_ids_in_order_alone() -> None:
    one, two = Ledger([edit("a"), edit("b")]), Ledger([edit("a", 2), edit("b", 0)])
    assert one.fingerprint() == two.fingerprint() != Ledger([edit("b"), edit("a")]).fingerprint()
    assert len(one.fingerprint()) == 64
    # A written-down one: resumed sessions compare with what an earlier version stored.
    assert Ledger([edit("a")]).fingerprint().startswith("ca978112ca1bbdca")


def test_near_names_are_proposed() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'abcde'\? Available: abcde\."):
        Ledger([edit("abcde")]).drop("abcdd")


def test_undone_edits_can_be_given() -> None:
    ledger = Ledger([edit("a")], [edit("b"), edit("c")])
    assert ledger.redo().id == "c"
    assert [e.id for e in ledger.edits] == ["a", "c"]
