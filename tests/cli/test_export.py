"""`llm-edit export`: from a session to files that others load, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine import paths
from engine.edit import Edit
from engine.export import asking
from engine.ledger import Ledger
from engine.patches import KINDS, LowRank, Patch
from engine.requests import Fact, Request, read_facts
from sessions.rows import PatchRecord
from sessions.store import Store
from tests.engine.export.exporting import (
    PROMPTS,
    TOKENS,
    Shelf,
    base_of,
    edits_of,
    load,
    patches_of,
)

from .conftest import Run, one_line
from .small import QUESTION

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short answers, which are quick."""
    monkeypatch.setattr(asking, "MAX_TOKENS", TOKENS)


def recorded(folder: Path, edits: Sequence[Edit], title: str = "facts") -> str:
    """A session with these edits, as if they had been made with the model of `folder`."""
    base = base_of(folder)
    with Store.open(paths.home()) as store:
        model = store.add_model(base.name, base.source, base.fingerprint, "float32", "llama")
        session = store.create_session(model, method="r-rome", title=title)
        for count, edit in enumerate(edits, start=1):
            described, tensors = edit.save()
            node = store.begin_edit(
                session.id, edit_id=edit.id, method=edit.method, hparams=edit.hparams,
                request=edit.requests[0].to_json(),
            )  # fmt: skip
            store.finish_edit(
                node.id,
                patches=[PatchRecord(kind=p.kind, site=p.site) for p in edit.patches],
                tensors=tensors, edit=described, before={}, after={}, success=True, verdict="",
                metrics={}, seconds={}, peak_memory=0, versions={},
                ledger_hash=Ledger(edits[:count]).fingerprint(),
            )  # fmt: skip
    return session.id


def made(folder: Path) -> list[Edit]:
    lm = load(folder)
    return edits_of(lm, patches_of(lm))


# -- the three formats --------------------------------------------------------------------------


def test_a_checkpoint_is_asked_again_and_reported(run: Run, model: Path, tmp_path: Path) -> None:
    edits = made(model)
    session = recorded(model, edits)
    out = tmp_path / "merged"
    ran = run("export", "facts", "--format", "hf", "--out", out, "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert told["session"] == session
    assert told["edits"] == [edit.id for edit in edits]
    assert (told["same"], told["lost"], told["dtype"]) == (3, [], "fp32")
    assert told["fingerprint"] == base_of(model).fingerprint
    for row, edit in zip(told["facts"], edits, strict=True):
        assert row["edit"] == edit.id
        assert row["prompt"] == edit.requests[0].prompt
        assert row["live"] == row["merged"]
        assert row["same"] is True
    assert told["bytes"] == sum(f.stat().st_size for f in out.iterdir())
    # The table has a line for each fact.
    head, *lines = [line for line in ran.err.splitlines() if "fact " in line or "same" in line]
    assert head.split() == ["fact", "edited", "model", "checkpoint"]
    assert len(lines) == 3
    assert all(line.endswith("same") for line in lines)


def test_a_lost_fact_is_named_and_exits_1(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written without the edits, as if rounding had taken them."""
    edits = made(model)
    recorded(model, edits)
    zero = lambda self: torch.zeros(self.A.shape[0], self.B.shape[1]).double()  # noqa: E731
    monkeypatch.setattr(LowRank, "delta", zero)
    ran = run("export", "facts", "--format", "hf", "--out", tmp_path / "out", "--dtype", "bf16")
    assert ran.code == 1
    request = edits[0].requests[0]
    assert "LOST" in ran.out
    assert f"{request.prompt} → " in ran.out
    assert (tmp_path / "out" / "config.json").is_file()  # for who wants it all the same
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert report["facts"][0]["lost"] is True


def test_an_adapter_needs_no_model(run: Run, model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(model, tmp_path / "source")
    edits = made(source)
    recorded(source, edits)
    shutil.rmtree(source)
    ran = run("export", "facts", "--format", "lora", "--out", tmp_path / "lora", "--json")
    assert ran.code == 0, ran.err
    one, other = edits[0].patches[0].site, edits[1].patches[0].site
    assert ran.json["ranks"] == {one: 3, other: 1}
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(source)
    assert ran.json["fingerprint"] in (tmp_path / "lora" / "README.md").read_text()
    again = run("export", "facts", "--format", "lora", "--out", tmp_path / "lora")
    assert again.code == 2
    assert "is there already" in one_line(again.err)


def test_facts_can_be_edited_in_again(
    run: Run, model: Path, small: tuple[object, ...], tmp_path: Path
) -> None:
    """Export, edit a new session from the file, export that: the same facts."""
    facts = tmp_path / "facts.jsonl"
    asked = {
        "prompt": QUESTION, "target_new": "Paris", "subject": "Australia", "chat": True,
        "rephrases": ["Which city is Australia's capital?"], "history": [["Who?", "Me."]],
    }  # fmt: skip
    plain = {"prompt": "The Space Needle is in", "target_new": "Rome", "subject": "Space Needle"}
    plain |= {"neighbours": ["The Louvre is in"], "method": "rome", "hparams": {"steps": 2}}
    facts.write_text(f"{json.dumps(asked)}\n{json.dumps(plain)}\n")
    ran = run("edit", "--file", facts, "--model", model, "--no-probes", "--json", *small)
    assert [row["method"] for row in ran.json["edits"]] == ["r-rome", "rome"]
    assert [row["steps"] for row in ran.json["edits"]] == [3, 3]  # the command line goes first

    session = ran.json["edits"][0]["session"]
    first = tmp_path / "out" / "first.jsonl"
    ran = run("export", session, "--format", "jsonl", "--out", first, "--json")
    assert ran.code == 0, ran.err
    one, two = read_facts(first)
    assert ran.json["facts"] == [json.loads(json.dumps(f.to_json())) for f in (one, two)]
    assert (one.method, two.method) == ("r-rome", "rome")
    assert one.request.history == (("Who?", "Me."),)
    assert (one.request.chat, two.request.chat) == (True, False)
    assert one.request.target_old  # what the model said before
    assert one.hparams["steps"] == 3
    assert one.request.rephrases == tuple(asked["rephrases"])
    assert two.request.neighbours == tuple(plain["neighbours"])

    other = shutil.copytree(model, tmp_path / "other")
    ran = run("edit", "--file", first, "--model", other, "--no-probes", "--json", "--dtype", "fp32")
    again = tmp_path / "again"
    run("export", ran.json["edits"][0]["session"], "--format", "jsonl", "--out", again)
    assert list(read_facts(again / "facts.jsonl")) == [one, two]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["hf", "lora"])
def test_an_edit_that_cannot_be_expressed_is_named(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setitem(KINDS, "shelf", Shelf)  # type: ignore[arg-type]
    shelf: Patch = Shelf("model.layers.0.mlp.down_proj", torch.ones(2))  # type: ignore[assignment]
    request = Request(prompt="The Louvre is in", subject="The Louvre", target_new="Rome")
    recorded(model, [*made(model), Edit("grace", (request,), (shelf,), {})])
    ran = run("export", "facts", "--format", form, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert "cannot hold 1 of the 4 edits: The Louvre → Rome" in one_line(ran.err)
    assert "(edit " in ran.err
    assert "grace: shelf" in ran.err
    assert not (tmp_path / "out").exists()
    # As facts, all are expressed.
    assert run("export", "facts", "--format", "jsonl", "--out", tmp_path / "out").code == 0
    assert len((tmp_path / "out" / "facts.jsonl").read_text().splitlines()) == 4


def test_a_superseded_edit_is_in_none_of_them(run: Run, model: Path, tmp_path: Path) -> None:
    lm = load(model)
    first, second, third = edits_of(lm, patches_of(lm))
    later = Edit("r-rome", second.requests, third.patches, {}, supersedes=(second.id,))
    recorded(model, [first, second, later])
    ran = run("export", "facts", "--format", "lora", "--out", tmp_path / "out", "--json")
    assert ran.json["edits"] == [first.id, later.id]
    assert ran.json["superseded"] == [second.id]
    assert set(ran.json["ranks"]) == {first.patches[0].site}
    ran = run("export", "facts", "--format", "jsonl", "--out", tmp_path / "facts.jsonl")
    assert "1 edit" in ran.err
    assert [f.request for f in read_facts(tmp_path / "facts.jsonl")] == [
        *first.requests, *later.requests
    ]  # fmt: skip


def test_nothing_to_export(run: Run, model: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--format", "jsonl")
    ran = run("export", "lost", *out)
    assert (ran.code, ran.out) == (2, "")
    assert "session 'lost' is not known" in one_line(ran.err)
    recorded(model, [], title="empty")
    ran = run("export", "empty", *out)
    assert (ran.code, ran.out) == (2, "")
    assert "session empty has no active edits" in one_line(ran.err)
    recorded(model, made(model)[:1])
    run("undo", "--session", "facts")
    ran = run("export", "facts", *out)
    assert ran.code == 2
    assert "no active edits" in one_line(ran.err)
    assert "llm-edit redo" in ran.err
    assert not (tmp_path / "out").exists()


def test_options_of_a_checkpoint_are_refused_elsewhere(run: Run, tmp_path: Path) -> None:
    ran = run("export", "x", "--format", "lora", "--out", tmp_path / "o", "--dtype", "bf16")
    assert ran.code == 2
    assert "belong to --format hf" in one_line(ran.err)


def test_a_quantised_base_takes_an_adapter_only(run: Run, model: Path, tmp_path: Path) -> None:
    edits = made(model)
    source = shutil.copytree(model, tmp_path / "quantised")
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (source / "config.json").write_text(json.dumps(config))
    recorded(source, edits)
    ran = run("export", "facts", "--format", "hf", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "is quantised (bitsandbytes)" in one_line(ran.err)
    assert "--format lora" in ran.err
    assert run("export", "facts", "--format", "lora", "--out", tmp_path / "out").code == 0


def test_a_moved_base_is_named_by_hand(run: Run, model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(model, tmp_path / "source")
    recorded(source, made(source)[:1])
    moved = source.rename(tmp_path / "moved")
    gone = run("export", "facts", "--format", "hf", "--out", tmp_path / "out")
    assert gone.code == 3
    assert str(source) in one_line(gone.err)
    ran = run("export", "facts", "--format", "hf", "--out", tmp_path / "out", "--model", moved)
    assert ran.code == 0, ran.err


def test_a_line_that_is_wrong_about_how_to_edit(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    for more, said in (
        ({"method": 3}, "facts.jsonl:1: 'method' must be text"),
        ({"hparams": [1]}, "facts.jsonl:1: 'hparams' must be an object"),
        ({"method": "r-rom"}, "Did you mean 'r-rome'?"),
    ):
        file.write_text(json.dumps({"prompt": "a", "target_new": "b", **more}))
        ran = run("edit", "--file", file)
        assert ran.code == 2
        assert said in one_line(ran.err)


def test_another_method_takes_nothing_from_the_line() -> None:
    from llm_edit.edit import _as_asked

    fact = Fact(
        request=Request(prompt=PROMPTS[0], target_new="b"), method="rome", hparams={"steps": 5}
    )
    kept = _as_asked(fact, None, {"method": None, "hp": {"lr": "0.1"}})
    assert (kept.method, kept.hparams) == ("rome", {"steps": 5, "lr": "0.1"})
    other = _as_asked(fact, None, {"method": "r-rome", "hp": {}})
    assert (other.method, other.hparams) == ("r-rome", {})
