"""The active edits at a tip: the fold by itself, and the tree of the store against a model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessions import PatchRecord, Store
from sessions.fold import State, Step, fold

_EDITS = st.sampled_from("abcd")
_MESSAGES = st.builds(Step, st.sampled_from(["forget", "remember"]), message=st.sampled_from("mn"))
_STEPS = st.builds(Step, st.sampled_from(["edit", "undo", "redo", "drop", "message"]), _EDITS)
_STEPS |= _MESSAGES


def test_each_kind() -> None:
    a, b = Step("edit", "a"), Step("edit", "b")
    assert fold([]) == State()
    assert fold([a, b]) == State(("a", "b"))
    assert fold([a, b, Step("undo", "b")]) == State(("a",), ("b",))
    assert fold([a, b, Step("drop", "a")]) == State(("b",), ("a",))
    assert fold([a, b, Step("drop", "a"), Step("redo", "a")]) == State(("b", "a"))
    assert fold([a, Step("undo", "a"), Step("message"), Step("redo", "a")]) == State(("a",))
    assert fold([a, Step("undo", "a"), b]) == State(("b",)), "an edit ends what can be redone"
    assert fold([a, Step("carry", state=State(("b",), ("c",)))]) == State(("b",), ("c",))


def test_forgetting_and_edits_leave_each_other_alone() -> None:
    a, m = Step("edit", "a"), Step("forget", message="m")
    assert fold([a, Step("undo", "a"), m]) == State((), ("a",), ("m",))
    assert fold([m, a]) == State(("a",), (), ("m",))
    assert fold([m, a, Step("remember", message="m")]) == State(("a",))


def test_a_redo_of_an_edit_on_another_branch_adds_it() -> None:
    assert fold([Step("undo", "a")]) == State((), ("a",))
    assert fold([Step("undo", "a"), Step("redo", "a")]) == State(("a",))


@given(st.lists(_STEPS), _STEPS)
def test_every_step_is_idempotent(before: list[Step], step: Step) -> None:
    assert fold([*before, step, step]) == fold([*before, step])


@given(st.lists(_STEPS), st.lists(_STEPS))
def test_a_walk_can_be_taken_in_two_parts(first: list[Step], second: list[Step]) -> None:
    assert fold([*first, *second]) == fold(second, fold(first))


@given(st.lists(_STEPS))
def test_an_edit_is_never_twice_and_never_both(steps: list[Step]) -> None:
    state = fold(steps)
    named = [*state.active, *state.undone]
    assert len(named) == len(set(named))


@given(st.lists(_STEPS), _EDITS)
def test_undo_then_redo_keeps_the_others_in_order(before: list[Step], edit: str) -> None:
    start = fold(before)
    after = fold([Step("undo", edit), Step("redo", edit)], start)
    assert [e for e in after.active if e != edit] == [e for e in start.active if e != edit]
    assert after.active[-1] == edit


class Tree(RuleBasedStateMachine):
    """Nodes are put anywhere; the model is a stack of edits that knows no tree.

    It keeps what is active now, and for every node what was active when it was made. The store
    must find both again from the paths alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        model = self.store.add_model("tiny", "here", "f", "float32")
        self.session = self.store.create_session(model, method="rome").id
        self.active: list[str] = []
        self.undone: list[str] = []
        self.made: dict[str, tuple[list[str], list[str]]] = {}
        self.edits: list[str] = []
        self.tip: str | None = None

    def _grown(self, node: str) -> None:
        self.tip = node
        self.made[node] = (list(self.active), list(self.undone))

    def _parent(self, data: st.DataObject) -> str | None:
        return data.draw(st.none() | st.sampled_from(sorted(self.made))) if self.made else None

    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        node = self.store.add_message(self.session, "user", "hello", parent=self._parent(data))
        self._grown(node.id)

    @rule(data=st.data(), ending=st.sampled_from(["done", "done", "done", "failed", "running"]))
    def edit(self, data: st.DataObject, ending: str) -> None:
        edit_id = f"edit-{len(self.store.edits(self.session)):04d}"
        node = self.store.begin_edit(
            self.session,
            edit_id=edit_id,
            method="rome",
            hparams={},
            request={"prompt": "a", "target_new": "b"},
            parent=self._parent(data),
        )
        if ending == "failed":
            self.store.fail_edit(node.id, "failed", "no")
        elif ending == "done":
            self._finish(node.id)
            self.edits.append(edit_id)
            self.active.append(edit_id)
            self.undone.clear()
            self._grown(node.id)

    def _finish(self, node: str) -> None:
        self.store.finish_edit(
            node,
            patches=[PatchRecord(kind="LowRank", site="x")],
            tensors=b"t",
            edit={},
            before={},
            after={},
            success=True,
            verdict="",
            metrics={},
            seconds={},
            peak_memory=0,
            versions={},
            ledger_hash="",
        )

    @precondition(lambda self: self.edits)
    @rule(data=st.data(), kind=st.sampled_from(["undo", "drop"]))
    def take_off(self, data: st.DataObject, kind: str) -> None:
        edit = data.draw(st.sampled_from(self.edits))
        parent = self._parent(data)
        node = self.store.add_mark(self.session, kind, edit, parent=parent, ledger_hash="")
        if edit in self.active:
            self.active.remove(edit)
        if edit not in self.undone:
            self.undone.append(edit)
        self._grown(node.id)

    @precondition(lambda self: self.edits)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        edit = data.draw(st.sampled_from(self.edits))
        parent = self._parent(data)
        node = self.store.add_mark(self.session, "redo", edit, parent=parent, ledger_hash="")
        if edit in self.undone:
            self.undone.remove(edit)
        if edit not in self.active:
            self.active.append(edit)
        self._grown(node.id)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def jump(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.made)))
        self.store.move_tip(self.session, node)
        active, undone = self.made[node]
        self.active, self.undone, self.tip = list(active), list(undone), node

    @invariant()
    def the_store_agrees(self) -> None:
        if not hasattr(self, "session"):
            return
        assert [e.id for e in self.store.active_edits(self.session)] == self.active
        assert [e.id for e in self.store.undone_edits(self.session)] == self.undone
        assert self.store.session(self.session).tip == self.tip
        for node, (active, _) in self.made.items():
            assert [e.id for e in self.store.active_edits(self.session, node)] == active


Tree.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTree = Tree.TestCase
