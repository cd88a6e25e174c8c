"""Edits: intent, outcome, failure, tensor files."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import CorruptTensors, MetricRecord, PatchRecord, Store, UnknownEdit
from sessions.owner import current

if TYPE_CHECKING:
    from conftest import Scribe


def test_the_intent_is_there_before_anything_is_computed(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    node = scribe.begin(session, "edit-one", subject="Australia")
    with Store.open(home) as other:  # what another process sees
        edit = other.edit("edit-one")
    assert (edit.state, edit.node, edit.session) == ("running", node.id, session)
    assert edit.owner == current()
    assert edit.owner.startswith(f"{os.getpid()}@")
    assert edit.hparams == {"layer": 12, "lr": 0.5}
    assert edit.request["subject"] == "Australia"
    assert (edit.seed, edit.device, edit.success, edit.finished) == (7, "cpu", None, None)
    assert scribe.store.active_edits(session) == []
    assert scribe.store.session(session).tip is None


def test_the_outcome_comes_back_whole(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    node = scribe.begin(session, "edit-one")
    patches = [
        PatchRecord(kind="LowRank", site="mlp.12", rank=1, norm_ratio=0.01),
        PatchRecord(kind="Prefix", site=""),
    ]
    metrics = {
        "said": {"before": 0.0, "after": 1.0, "n": 1, "detail": {"target": "Melbourne"}},
        "rephrased": {"before": None, "after": {"float": "nan"}, "n": 0},
        "fluency": {"before": 12.5, "after": math.inf, "n": 3, "detail": {"rows": [math.nan]}},
    }
    returned = scribe.finish(node.id, patches=patches, metrics=metrics, ledger_hash="abc")
    edit = scribe.store.edit("edit-one")
    assert repr(edit) == repr(returned)  # repr: NaN equals itself
    assert (edit.state, edit.success, edit.verdict) == ("done", True, "changed and kept")
    assert edit.after["answer"] == "Melbourne"
    assert math.isnan(edit.after["p_old"])
    assert edit.seconds == {"total": 1.5}
    assert (edit.peak_memory, edit.versions, edit.ledger_hash) == (1024, {"torch": "2"}, "abc")
    assert edit.body == {"id": "x", "requests": []}
    assert edit.finished is not None
    assert edit.patches[0] == patches[0]
    assert (edit.patches[1].kind, edit.patches[1].rank) == ("Prefix", 0)
    assert math.isnan(edit.patches[1].norm_ratio)
    said, rephrased, fluency = edit.metrics
    detail = {"target": "Melbourne"}
    assert said == MetricRecord(name="said", before=0.0, after=1.0, n=1, detail=detail)
    assert math.isnan(rephrased.before)
    assert math.isnan(rephrased.after)
    assert fluency.after == math.inf
    assert math.isnan(fluency.detail["rows"][0])
    assert scribe.store.session(session).tip == node.id
    assert scribe.store.tensors(edit) == b"tensors"
    name = hashlib.sha256(b"tensors").hexdigest()
    assert [p.name for p in (home / "tensors").iterdir()] == [f"{name}.safetensors"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_an_edit_that_came_to_nothing(scribe: Scribe, state: str) -> None:
    session = scribe.session().id
    question = scribe.store.add_message(session, "user", "?")
    node = scribe.begin(session, "edit-one")
    edit = scribe.store.fail_edit(node.id, state, "the loss became NaN.")
    assert (edit.state, edit.error, edit.tensors) == (state, "the loss became NaN.", None)
    assert scribe.store.active_edits(session) == []
    assert scribe.store.session(session).tip == question.id
    assert [e.id for e in scribe.store.edits(session)] == ["edit-one"]
    with pytest.raises(UnknownEdit, match=f"has no tensors: it is {state}"):
        scribe.store.tensors(edit)


def test_an_edit_ends_once(scribe: Scribe) -> None:
    session = scribe.session().id
    done, failed = scribe.begin(session, "edit-done"), scribe.begin(session, "edit-failed")
    scribe.finish(done.id)
    scribe.store.fail_edit(failed.id, "failed", "")
    message = scribe.store.add_message(session, "user", "?")
    for node, reason in (
        (done, r"has ended already \(done\)"),
        (failed, r"has ended already \(failed\)"),
        (message, "is not an edit"),
    ):
        with pytest.raises(UnknownEdit, match=reason):
            scribe.finish(node.id, tensors=b"other")
        with pytest.raises(UnknownEdit, match=reason):
            scribe.store.fail_edit(node.id, "cancelled", "")
    with pytest.raises(ValueError, match="failed, cancelled"):
        scribe.store.fail_edit(done.id, "done", "")
    assert [e.state for e in scribe.store.edits(session)] == ["done", "failed"]


def test_an_edit_is_found_by_parts_of_its_id(scribe: Scribe) -> None:
    session = scribe.session().id
    scribe.edit(session, "0194aa00beef")
    scribe.edit(session, "0194aa00cafe")
    assert scribe.store.edit("beef").id == "0194aa00beef"
    with pytest.raises(UnknownEdit, match="could be 2 things"):
        scribe.store.edit("0194aa")
    with pytest.raises(UnknownEdit, match="edit 'dead' is not known") as caught:
        scribe.store.edit("dead")
    assert caught.value.exit_code == 2


def test_a_running_edit_of_a_living_process_is_not_interrupted(scribe: Scribe) -> None:
    scribe.begin(scribe.session().id, "edit-one")
    assert scribe.store.interrupted() == []
    assert scribe.store.edit("edit-one").state == "running"


def test_a_process_number_used_again_does_not_hide_an_interrupted_edit(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, _, start = current().partition("@")
    monkeypatch.setattr("sessions.owner.current", lambda: f"{pid}@{float(start) - 3600}")
    session = scribe.session().id
    scribe.begin(session, "edit-one")
    found = scribe.store.interrupted()
    assert [(e.id, e.state) for e in found] == [("edit-one", "interrupted")]
    assert found[0].error == "the process ended before the edit did."
    assert scribe.store.interrupted() == []


def test_an_edit_wrongly_taken_for_dead_can_still_be_recorded(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = scribe.begin(scribe.session().id, "edit-one")
    monkeypatch.setattr("sessions.owner.is_alive", lambda owner: False)
    assert len(scribe.store.interrupted()) == 1
    assert scribe.finish(node.id).state == "done"
    assert scribe.store.edit("edit-one").error == ""


def test_two_edits_with_the_same_tensors_share_a_file(scribe: Scribe, home: Path) -> None:
    session = scribe.session().id
    first, second = scribe.edit(session, "edit-one"), scribe.edit(session, "edit-two")
    assert len(list((home / "tensors").iterdir())) == 1
    assert scribe.store.tensors(first) == scribe.store.tensors(second) == b"tensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"tens"), "is not what was stored"),
        (lambda path: path.write_bytes(b"tensorz"), "is not what was stored"),
        (lambda path: path.write_bytes(b""), "is not what was stored"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_a_damaged_tensor_file(scribe: Scribe, home: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    edit = scribe.edit(scribe.session().id, "edit-one")
    (file,) = (home / "tensors").iterdir()
    damage(file)
    with pytest.raises(CorruptTensors, match=message) as caught:
        scribe.store.tensors(edit)
    assert str(file) in caught.value.message
    assert "drop this edit" in caught.value.remedy
    assert caught.value.exit_code == 3
    (fault,) = scribe.store.check()
    assert fault.startswith("edit edit-one: ")
    assert message in fault
    assert scribe.store.edit("edit-one") is not None


def test_a_damaged_file_is_healed_by_an_edit_with_the_same_tensors(
    scribe: Scribe, home: Path
) -> None:
    session = scribe.session().id
    edit = scribe.edit(session, "edit-one")
    (file,) = (home / "tensors").iterdir()
    file.write_bytes(b"tens")
    scribe.edit(session, "edit-two")
    assert scribe.store.tensors(edit) == b"tensors"


def test_sweep_removes_orphans_and_nothing_else(scribe: Scribe, home: Path) -> None:
    scribe.edit(scribe.session().id, "edit-one")
    folder = home / "tensors"
    (kept,) = folder.iterdir()
    orphan = folder / f"{'0' * 64}.safetensors"
    half = folder / ".01ABC.tmp"
    mine = folder / "notes.txt"
    for file in (orphan, half, mine):
        file.write_bytes(b"x")
    assert scribe.store.sweep() == [], "they may belong to an edit that is being recorded"
    for file in (orphan, half, mine, kept):
        os.utime(file, (1, 1))
    assert set(scribe.store.sweep()) == {orphan, half}
    assert set(folder.iterdir()) == {kept, mine}


def test_sweep_without_a_folder(store: Store) -> None:
    assert store.sweep() == []


def test_a_file_swept_before_its_row_is_written_again(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessions.blobs import Blobs

    node = scribe.begin(scribe.session().id, "edit-one")
    real, written = Blobs.write, []

    def write_and_lose(self: Blobs, data: bytes) -> str:
        digest = real(self, data)
        if not written:
            self.path(digest).unlink()
        written.append(digest)
        return digest

    monkeypatch.setattr(Blobs, "write", write_and_lose)
    assert scribe.store.tensors(scribe.finish(node.id)) == b"tensors"
    assert len(written) == 2


def test_costs_are_those_of_edits_of_one_fact(scribe: Scribe) -> None:
    session = scribe.session().id
    scribe.edit(session, "one", edit={"requests": [{}]}, seconds={"total": 2.0}, peak_memory=10)
    scribe.edit(session, "many", edit={"requests": [{}] * 9}, seconds={"total": 90.0})
    assert scribe.store.costs("f" * 64, "cpu", "r-rome") == [(2.0, 10)]
