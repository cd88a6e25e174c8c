"""Models of which a part is fetched for each pass: every method edits them all the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, dispatch_model

from engine import methods
from engine.correct import hparams_of
from engine.edit import Edit
from engine.lm import LM
from tests.tiny import tiny_model, tiny_tokenizer

from .support import NEAR, finish

SETTINGS = {
    "tokens": "2000", "contexts": "1", "steps": "3", "passages": "2", "layers": "1", "layer": "1",
    "first": "0", "last": "1", "down": "1",
}  # fmt: skip
PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head")
AWAY = {"model.layers.1", "lm_head"}


def offloaded(folder: Path, *, all_: bool) -> LM:
    """With a block and the head on the disk, or with everything fetched for each pass."""
    model = tiny_model("llama")
    if all_:
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        places = {part: "disk" if part in AWAY else "cpu" for part in PARTS}
        dispatch_model(
            model, places | {"model.rotary_emb": "cpu"}, main_device="cpu", offload_dir=str(folder)
        )
    assert model.lm_head.weight.is_meta
    return LM(model, tiny_tokenizer("llama"), name="tiny", fingerprint="llama")


def edit(lm: LM, name: str, text: str) -> Edit:
    info = methods.get(name)
    known = {field.name for field in dataclasses.fields(info.params_class())}
    settings = {k: v for k, v in (SETTINGS | {"text": text}).items() if k in known}
    hp, _ = hparams_of(lm, info, settings, 0)
    _, made = finish(info.run()(lm, [NEAR], hp))
    return made


@pytest.mark.parametrize("all_", [False, True], ids=["in part", "whole"])
@pytest.mark.parametrize("name", methods.METHODS)
def test_the_edit_is_that_of_the_model_in_memory(
    name: str, all_: bool, text: str, tmp_path: Path
) -> None:
    lm = offloaded(tmp_path / "weights", all_=all_)
    made = edit(lm, name, text)
    here = LM(tiny_model("llama"), tiny_tokenizer("llama"), name="tiny", fingerprint="llama")
    for one, other in zip(made.patches, edit(here, name, text).patches, strict=True):
        assert (one.site, one.kind) == (other.site, other.kind)
        assert other.norm() > 0
        torch.testing.assert_close(one.delta(), other.delta(), rtol=1e-3, atol=1e-6)
    with lm.active(made.patches), here.active(made.patches):
        prompts = [lm.statement("The Space Needle")]
        torch.testing.assert_close(lm.logits(prompts), here.logits(prompts))
