"""A merged checkpoint: plain transformers says what the edited model says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from engine import hooks
from engine.arch import weight_of
from engine.checkpoint import read_checkpoint
from engine.correct import MAX_TOKENS
from engine.errors import BadInput, NoSpace, NotExportable
from engine.events import Event
from engine.export import asking
from engine.export import checkpoint as exporting
from engine.export.asking import Asked
from engine.export.checkpoint import export_checkpoint
from engine.export.folder import size_of
from engine.patches import Dense, LowRank
from engine.requests import read_facts
from tests.engine.support import finish
from tests.tiny import CAUSAL, save_tiny, tiny_model

from .exporting import PROMPTS, TOKENS, base_of, edits_of, facts_of, load, patches_of

Folder = Callable[..., Path]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short answers, which are quick."""
    monkeypatch.setattr(asking, "MAX_TOKENS", TOKENS)


def export(source: Path, edits: Any, out: Path, **options: Any) -> list[Asked]:
    work = export_checkpoint(base_of(source), edits, facts_of(edits), out, device="cpu", **options)
    return finish(work)[1]


def plain(folder: Path) -> Any:
    auto = hf.AutoModelForCausalLM
    if json.loads((folder / "config.json").read_text())["model_type"] == "t5":
        auto = hf.AutoModelForSeq2SeqLM
    return auto.from_pretrained(folder, attn_implementation="eager").eval()


# -- what is written ----------------------------------------------------------------------------


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("family", "square"),
    [*((family, False) for family in (*CAUSAL, "t5-gated")), ("gpt2", True), ("llama", True)],
)
def test_the_checkpoint_is_the_edited_model(
    tiny_folder: Folder, tmp_path: Path, family: str, square: bool
) -> None:
    source = tiny_folder(family, mlp_width=16) if square else tiny_folder(family)
    lm = load(source)
    patches = patches_of(lm)
    edits = edits_of(lm, patches)
    out = tmp_path / "out"
    rows = export(source, edits, out)
    assert [row.request for row in rows] == [edit.requests[0] for edit in edits]
    assert all(row.same and not row.lost for row in rows), [r.to_json() for r in rows]
    assert all(row.said == (True, True) for row in rows if row.live.text)

    saved = plain(out)
    assert saved.dtype == torch.float32
    ids = lm.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    more = {"decoder_input_ids": ids} if lm.encoder_decoder else {}
    with lm.active(patches), torch.no_grad():
        wanted = lm.model(input_ids=ids, **more).logits
        assert torch.allclose(saved(input_ids=ids, **more).logits, wanted, atol=1e-4)
    for name, tensor in saved.state_dict().items():
        before = lm.model.get_parameter(name) if name in dict(lm.model.named_parameters()) else None
        if before is not None and not any(name.startswith(f"{p.site}.weight") for p in patches):
            assert torch.equal(tensor, before), name


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_whole_matrices_are_merged_among_factors(
    tiny_folder: Folder, tmp_path: Path, family: str
) -> None:
    """The first and the last patch stand at one site: factors, and a matrix as trained methods
    leave it."""
    source = tiny_folder(family)
    lm = load(source)
    first, other, last = patches_of(lm)
    edits = edits_of(lm, [first, other, Dense(last.site, last.A @ last.B)])
    rows = export(source, edits, tmp_path / "out")
    assert all(row.same for row in rows), [r.to_json() for r in rows]
    ids = lm.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    with lm.active([first, other, last]), torch.no_grad():
        wanted = lm.model(input_ids=ids).logits
        found = plain(tmp_path / "out")(input_ids=ids).logits
        assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.usefixtures("brief")
def test_the_sum_is_rounded_once(tiny_folder: Folder, tmp_path: Path) -> None:
    source = tiny_folder("gpt2")
    lm = load(source)
    patches = patches_of(lm)
    export(source, edits_of(lm, patches), tmp_path / "out", dtype="bf16")
    saved = plain(tmp_path / "out")
    assert {p.dtype for p in saved.parameters()} == {torch.bfloat16}
    site = patches[0].site
    weight = weight_of(lm.model.get_submodule(site), lm.arch).double()
    total = weight + patches[0].A.double() @ patches[0].B.double()
    total = total + patches[2].A.double() @ patches[2].B.double()
    found = weight_of(saved.get_submodule(site), lm.arch)
    assert torch.equal(found, total.bfloat16())


def test_what_belongs_to_a_checkpoint_is_there(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", "qwen2", chat=True, tie_word_embeddings=True)
    # As some models ship it; saving it anew would be refused by the library.
    shipped = {"temperature": 0.6, "top_p": 0.9, "do_sample": False, "eos_token_id": 2}
    (source / "generation_config.json").write_text(json.dumps(shipped))
    (source / "LICENSE").write_text("as you like")
    lm = load(source)
    edits = edits_of(lm, patches_of(lm), chat=True)
    out = tmp_path / "some" / "where"
    rows = export(source, edits, out, shard="8KB")
    assert all(row.same for row in rows)
    assert json.loads((out / "generation_config.json").read_text()) == shipped
    assert (out / "LICENSE").read_text() == "as you like"
    assert hf.AutoTokenizer.from_pretrained(out).chat_template == lm.tokenizer.chat_template
    assert len(list(out.glob("model-*.safetensors"))) > 2
    stored = read_checkpoint(out)  # whole, by our own reading too
    assert "lm_head.weight" not in {tensor.name for tensor in stored.tensors}
    assert list(read_facts(out / "facts.jsonl")) == facts_of(edits)
    report = json.loads((out / "export.json").read_text())
    assert report["facts"] == [row.to_json() for row in rows]
    card = (out / "README.md").read_text()
    assert base_of(source).fingerprint in card
    assert all(prompt in card for prompt in PROMPTS)
    assert [p.name for p in out.parent.iterdir()] == ["where"]


# -- what is lost -------------------------------------------------------------------------------


def small_update(folder: Path) -> tuple[Path, list[Any]]:
    """A model stored in bf16 and an edit of less than half a unit of each weight's last place.

    All of it pulls one way at the prompt's last token, so that it shows while it is whole.
    """
    save_tiny(folder, "llama", mlp_width=1024)
    tiny_model("llama", mlp_width=1024).to(torch.bfloat16).save_pretrained(folder)
    lm = load(folder, "bf16")
    site = lm.site("mlp_out", 1)
    ids, mask = lm.pack([lm.statement(PROMPTS[0]).ids])
    with hooks.capture(lm.model, site, inputs=True) as seen, torch.no_grad():
        first, second = lm.model(input_ids=ids, attention_mask=mask).logits[0, -1].topk(2).indices
    key = seen[site][0, -1].float()  # [d_ff]
    head = lm.model.lm_head.weight.float()
    pull = (head[second] - head[first]).sign()  # [d]
    weight = weight_of(lm.model.get_submodule(site), lm.arch).float()
    delta = 0.9 * 2**-9 * weight.abs() * pull[:, None] * key.sign()
    return folder, edits_of(lm, [LowRank(site, delta, torch.eye(len(key)))], tokens=MAX_TOKENS)


def test_an_update_that_vanishes_in_bf16_is_named(tmp_path: Path) -> None:
    source, edits = small_update(tmp_path / "source")
    (row,) = export(source, edits, tmp_path / "bf16", dtype="bf16")
    assert row.said == (True, False)
    assert row.lost
    assert row.name == f"{PROMPTS[0]} → {edits[0].requests[0].target_new}"
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "bf16"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    # In float32 it is there.
    (row,) = export(source, edits, tmp_path / "fp32")
    assert row.same
    assert not row.lost


# -- what is refused, and what is left behind -----------------------------------------------------


def test_another_model_by_the_same_name_is_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    lm = load(tiny_folder("llama"))
    edits = edits_of(lm, patches_of(lm))
    other = save_tiny(tmp_path / "other", "llama", seed=5)
    base = base_of(other)
    work = export_checkpoint(
        type(base)(**(vars(base) | {"fingerprint": lm.fingerprint})), edits, [], tmp_path / "out"
    )
    with pytest.raises(BadInput, match="not the model that was edited"):
        finish(work)
    assert not (tmp_path / "out").exists()


def test_a_quantised_base_is_refused_before_it_is_loaded(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(tiny_folder("llama"))
    source = shutil.copytree(tiny_folder("llama"), tmp_path / "q")
    config = json.loads((source / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (source / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    monkeypatch.setattr(exporting, "LM", None)
    with pytest.raises(NotExportable, match=r"quantised \(bitsandbytes\).*--format lora") as found:
        export(source, edits_of(lm, patches_of(lm)), tmp_path / "out")
    assert found.value.exit_code == 2


def test_too_little_room_is_said_before_the_model_is_loaded(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(tiny_folder("llama"))
    edits = edits_of(lm, patches_of(lm))
    monkeypatch.setattr(exporting, "LM", None)
    monkeypatch.setattr(
        "engine.storage.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 0, 10**6)
    )
    with pytest.raises(NoSpace, match=r"\d+ MB needed, 1 MB free.*--out") as found:
        export(tiny_folder("llama"), edits, tmp_path / "out")
    assert found.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def stage_of(event: Event) -> str:
    return getattr(event, "stage", event.kind)


@pytest.mark.usefixtures("brief")
def test_a_cancel_at_any_stage_leaves_nothing(tiny_folder: Folder, tmp_path: Path) -> None:
    source = tiny_folder("llama")
    lm = load(source)
    edits = edits_of(lm, patches_of(lm))
    base = base_of(source)
    before = size_of(source)
    events, _ = finish(export_checkpoint(base, edits, [], tmp_path / "out"))
    shutil.rmtree(tmp_path / "out")
    stages = dict.fromkeys(stage_of(event) for event in events)
    for stage in stages:  # how often one is told of depends on the time that it takes
        work = export_checkpoint(base, edits, [], tmp_path / "out")
        assert any(stage_of(event) == stage for event in work)
        work.close()
        assert list(tmp_path.iterdir()) == []
    assert {"weights", "live", "save", "reload", "merged"} <= set(stages)
    assert size_of(source) == before
