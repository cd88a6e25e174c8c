"""A LoRA adapter: peft, on the unchanged model, says what the edited model says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from engine.edit import Edit
from engine.errors import NotExportable
from engine.export.adapter import configuration, write_adapter
from engine.export.card import Base
from engine.export.folder import size_of
from engine.patches import KINDS, Dense
from engine.requests import Request, read_facts
from tests.tiny import CAUSAL

from .exporting import (
    PROMPTS,
    TOKENS,
    Shelf,
    base_of,
    edits_of,
    facts_of,
    load,
    patches_of,
    random_patch,
)

Folder = Callable[..., Path]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # between the two
@pytest.mark.parametrize("family", [*CAUSAL, "t5-gated"])
def test_peft_gives_the_same_answers(tiny_folder: Folder, tmp_path: Path, family: str) -> None:
    peft = pytest.importorskip("peft")
    source = tiny_folder(family)
    lm = load(source)
    patches = patches_of(lm)
    edits = edits_of(lm, patches)
    sites = write_adapter(edits, facts_of(edits), base_of(source), tmp_path)
    assert sites == {patches[0].site: 3, patches[1].site: 1}

    auto: Any = hf.AutoModelForSeq2SeqLM if lm.encoder_decoder else hf.AutoModelForCausalLM
    wrapped = peft.PeftModel.from_pretrained(
        auto.from_pretrained(source, attn_implementation="eager"), tmp_path
    ).eval()
    for prompt in PROMPTS:
        rendered = lm.statement(prompt)
        ids, mask = lm.pack([rendered.ids])
        more = {"decoder_input_ids": ids} if lm.encoder_decoder else {}
        with torch.no_grad():
            found = wrapped(input_ids=ids, attention_mask=mask, **more).logits
            unedited = lm.model(input_ids=ids, attention_mask=mask, **more).logits
            with lm.active(patches):
                wanted = lm.model(input_ids=ids, attention_mask=mask, **more).logits
                said = lm.reply(rendered, TOKENS)
        assert torch.allclose(found, wanted, atol=1e-4)
        assert (unedited - wanted).abs().max() > 0.01
        out = wrapped.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS,
            eos_token_id=sorted(lm.stop_ids(rendered)), pad_token_id=0, use_cache=False,
        )[0, 1 if lm.encoder_decoder else ids.shape[1] :]  # fmt: skip
        assert lm.decode(out.tolist()).strip() == said.text
    # Merging needs the orientation of the weights too.
    merged = wrapped.merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(
            merged(input_ids=ids, attention_mask=mask, **more).logits, wanted, atol=1e-4
        )


def test_the_folder_says_what_it_belongs_to(tiny_folder: Folder, tmp_path: Path) -> None:
    lm = load(tiny_folder("gpt2"))
    edits = edits_of(lm, patches_of(lm))
    base = Base(
        name="gpt2", source="openai-community/gpt2@main", fingerprint="ab" * 32,
        model_type="gpt2", hub="openai-community/gpt2", revision="main",
    )  # fmt: skip
    write_adapter(edits, facts_of(edits), base, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "openai-community/gpt2"
    assert config["revision"] == "main"
    assert config["fan_in_fan_out"] is True
    assert config["target_modules"] == ["transformer.h.1.mlp.c_proj", "transformer.h.0.mlp.c_proj"]
    assert (config["r"], config["lora_alpha"]) == (3, 3)
    assert config["rank_pattern"] == config["alpha_pattern"] == {"transformer.h.0.mlp.c_proj": 1}
    card = (tmp_path / "README.md").read_text()
    assert "base_model: openai-community/gpt2" in card
    assert "ab" * 32 in card
    assert list(read_facts(tmp_path / "facts.jsonl")) == facts_of(edits)
    assert size_of(tmp_path) > 0


def test_ranks_that_are_equal_need_no_pattern(tiny_folder: Folder) -> None:
    base = base_of(tiny_folder("llama"))
    config = configuration({"a.mlp": 2, "b.mlp": 2}, base)
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (2, 2, {})
    assert config["fan_in_fan_out"] is False
    assert config["base_model_name_or_path"] == base.name


def test_what_people_typed_is_no_markup(tiny_folder: Folder, tmp_path: Path) -> None:
    lm = load(tiny_folder("llama"))
    request = Request(prompt="# Who?\n---\n<b>you</b>", target_new="`me`\n\n# you")
    edit = Edit("r-rome", (request,), (random_patch(lm, 0, 1, 0),), {})
    write_adapter([edit], facts_of([edit]), base_of(tiny_folder("llama")), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "\n    # Who? --- <b>you</b> → `me` # you\n" in card


# -- what cannot be expressed ---------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "kind"), [(Shelf, "shelf"), (Dense, "dense")])
def test_an_edit_that_is_no_lora_is_named_and_refused(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: Any, kind: str
) -> None:
    monkeypatch.setitem(KINDS, kind, cls)
    lm = load(tiny_folder("llama"))
    good = random_patch(lm, 0, 1, 0)
    request = Request(prompt="The Louvre is in", subject="The Louvre", target_new="Rome")
    odd = Edit("grace", (request,), (good, cls(good.site, torch.ones(2, 2))), {})
    odd = Edit.load(*odd.save())  # as it comes from a session
    fine = Edit("r-rome", (request,), (good,), {})
    with pytest.raises(NotExportable) as found:
        write_adapter([fine, odd], [], base_of(tiny_folder("llama")), tmp_path)
    said = str(found.value)
    assert "1 of the 2 edits" in said
    assert f"The Louvre → Rome (edit {odd.id}, grace: {kind})" in said
    assert fine.id not in said
    assert found.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_edit_without_patches_is_not_dropped(tiny_folder: Folder, tmp_path: Path) -> None:
    request = Request(prompt="The Louvre is in", target_new="Rome")
    empty = Edit("ike", (request,), (), {})
    with pytest.raises(NotExportable, match="The Louvre is in → Rome"):
        write_adapter([empty], [], base_of(tiny_folder("llama")), tmp_path)
