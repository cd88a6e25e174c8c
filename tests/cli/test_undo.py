"""`undo` and `redo`: how many, which one, of which session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.store import Store

from .conftest import Run
from .small import QUESTION, edit_two, locked_at

pytestmark = pytest.mark.usefixtures("own_folders")


def test_undo_goes_back_n_edits_or_none(run: Run, model: Path, small: tuple[object, ...]) -> None:
    for subject in ("Paris", "Emma", "Sydney"):
        ran = run(
            "edit", f"Where is {subject}?", "--subject", subject, "--target", "north", "--model",
            model, "--no-probes", *small,
        )  # fmt: skip
        assert ran.code == 1, ran.err
    too_many = run("undo", 4)
    assert (too_many.code, too_many.out) == (2, "")
    assert "only 3" in too_many.err
    assert len(run("undo", 2, "--json").json["active"]) == 1
    assert len(run("redo", 2, "--json").json["active"]) == 3
    session = run("sessions", "list", "--json").json["sessions"][0]
    assert session["edits"] == 3
    assert "error: there is no edit to redo in this session." in run("redo").err
    excluded = run("undo", 3, "--edit", 2)
    assert (excluded.code, "N and --edit exclude each other" in excluded.err) == (2, True)
    dropped = run("undo", "--edit", "#2")
    assert dropped.out.startswith("undone: Emma → north ")
    assert run("undo", "--edit", "9").code == 2


def test_an_edit_that_is_not_in_force_is_said_by_its_number(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    edit_two(run, model, small)
    home, request = Path(os.environ["LLM_EDIT_HOME"]), {"prompt": "a", "target_new": "b"}
    with Store.open(home) as store:
        session = store.latest_session()
        assert session is not None
        for name in ("first", "second"):
            node = store.begin_edit(
                session.id, edit_id=name, method="r-rome", hparams={}, request=request
            )
            store.fail_edit(node.id, "cancelled" if name == "first" else "failed", "")
    for number, state in (("3", "stopped"), ("4", "failed"), ("first", "stopped")):
        ran = run("undo", "--edit", number)
        shown = number if number.isdigit() else "3"
        assert ran.code == 2
        assert ran.err == (
            f"error: edit #{shown} is {state}: it cannot be taken off. In force: #1, #2.\n"
        )
    run("undo", 2)
    assert "edit #1 is undone: it cannot be taken off. In force: none." in run(
        "undo", "--edit", 1
    ).err  # fmt: skip


def test_undo_takes_off_several_edits_or_none_of_them(
    run: Run, model: Path, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_two(run, model, small)
    with monkeypatch.context() as broken:
        broken.setattr(Store, "add_mark", locked_at(2))
        assert run("undo", 2).code == 3
    assert run("sessions", "list", "--json").json["sessions"][0]["edits"] == 2


def test_undo_finds_the_session_that_was_edited_last(
    run: Run, model: Path, small: tuple[object, ...], tiny_folder: Callable[..., Path]
) -> None:
    nothing = run("undo")
    assert (nothing.code, "nothing was edited yet" in nothing.err) == (2, True)
    edit_two(run, model, small)
    other = tiny_folder("gpt2", chat=True)
    assert run("ask", QUESTION, "--model", other).code == 0, "a session that is used later"
    undone = run("undo")
    assert undone.code == 0
    assert undone.out.startswith("undone: Emma → Paris")
    assert f"({model})" in undone.lines[-1]
