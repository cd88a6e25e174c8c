"""Weights in 4 and 8 bits: patches beside them, gradients through them, refusals in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import methods, quantised
from engine.arch import weight_of
from engine.catalog import resolve_model
from engine.checkpoint import read_checkpoint
from engine.correct import method_of
from engine.errors import BadSetting, MissingResource, NotExportable, UnsupportedModel
from engine.export.card import Base
from engine.export.checkpoint import export_checkpoint
from engine.hooks import patched
from engine.lm import LM
from engine.loading import load_model
from engine.outcome import layer_of
from engine.patches import LowRank
from engine.requests import Request

from .support import CORPUS, finish

Folder = Callable[..., Path]
KINDS = ("4bit", "8bit")
FACT = Request(
    prompt="The Space Needle is in the city of", subject="Space Needle", target_new="Paris"
)
WIDE = {
    "width": 64,
    "mlp_width": 128,
}  # scales and embeddings do not outweigh the rest


@pytest.fixture(scope="module", params=KINDS)
def lm(request: pytest.FixtureRequest, tiny_folder: Folder) -> LM:
    pytest.importorskip("bitsandbytes")
    return loaded(tiny_folder("llama", **WIDE), request.param)


def loaded(folder: Path, load_in: str) -> LM:
    _, found = finish(LM.load(str(folder), dtype="fp32", device="cpu", load_in=load_in))
    return found


def text_of(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(CORPUS * 4))
    return str(file)


def test_it_is_quantised_and_says_so(lm: LM, tiny_folder: Folder) -> None:
    folder = tiny_folder("llama", **WIDE)
    dense = loaded(folder, "")
    site = lm.model.get_submodule(lm.site("mlp_out", 0))
    assert not site.weight.is_floating_point()
    assert quantised.is_quantised(lm.model)
    assert not quantised.is_quantised(dense.model)
    assert lm.load_in in KINDS
    assert dense.load_in == ""
    assert lm.bytes < dense.bytes / 1.5
    assert lm.fingerprint != dense.fingerprint
    assert len(lm.fingerprint) == 64
    estimated = quantised.size(read_checkpoint(folder), lm.load_in, torch.float32)
    assert estimated == pytest.approx(lm.bytes, rel=0.15)
    with pytest.raises(UnsupportedModel, match="quantised"):
        weight_of(site, lm.arch)


def test_its_norm_is_that_of_the_dense_weight_nearly(lm: LM, tiny_folder: Folder) -> None:
    dense = loaded(tiny_folder("llama", **WIDE), "")
    lm.logits([lm.statement("The Space Needle is in")])  # 8 bits: the scales move in a first pass
    for layer in range(lm.n_layers):
        name = lm.site("mlp_out", layer)
        true = weight_of(dense.model.get_submodule(name), dense.arch)
        found = quantised.dequantised(lm.model.get_submodule(name))
        assert found is not None
        assert float((found.float() - true).norm() / true.norm()) < 0.15
        patch = LowRank(name, torch.ones(lm.width, 1), torch.ones(1, lm.arch.mlp_width))
        ratio = layer_of(lm, patch)["norm_ratio"]
        assert ratio == pytest.approx(patch.norm() / float(true.norm()), rel=0.05)
        assert layer_of(dense, patch)["norm_ratio"] == patch.norm() / float(true.norm())


def test_a_kind_of_weight_that_is_not_known_has_no_norm() -> None:
    module = torch.nn.Linear(2, 2)
    module.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    assert quantised.norm(module) != quantised.norm(module)  # NaN


def test_gradients_flow_through_quantised_layers(lm: LM) -> None:
    delta = torch.zeros(lm.width, requires_grad=True)
    ids, mask = lm.pack([lm.statement("The Space Needle is in").ids])
    with patched(lm.model, {lm.site("mlp_out", 0): lambda _x, y: y + delta.to(y.dtype)}):
        lm.forward(ids, mask).logits.float().logsumexp(-1).sum().backward()
    assert delta.grad is not None
    assert float(delta.grad.norm()) > 0
    assert bool(delta.grad.isfinite().all())


VALUE = {
    "tokens": 2000, "contexts": 2, "steps": 8, "relative_lr": 2.0, "clamp": 20.0, "kl": 0.01,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {**VALUE, "layer": 0} for name in ("r-rome", "rome", "emmet")},
    **{name: {**VALUE, "first": 0, "last": 0} for name in ("memit", "pmet")},
    "alphaedit": {**VALUE, "first": 0, "last": 0, "rank": 1.0, "relative_weight": 1e-3},
    "lora": {"layers": (0,), "rank": 2, "steps": 8, "lr": 1e-2},
    "ultraedit": {"down": (0,), "lr": 1e-2},
    "kn": {"relative": True, "steps": 3},
}


def test_every_low_rank_method_is_asked() -> None:
    assert set(SETTINGS) == {name for name, info in methods.METHODS.items() if not info.dense}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_low_rank_methods_edit_it_and_undo_is_exact(lm: LM, tmp_path: Path, name: str) -> None:
    info, own = method_of(lm, FACT, name), SETTINGS[name]
    text = {"text": text_of(tmp_path)} if hasattr(info.params_class(), "text") else {}
    hp = info.params_class()(**own, **text)
    prompts = [lm.statement(FACT.prompt), lm.statement("Emma was written by")]
    before = lm.logits(prompts)
    _, edit = finish(info.run()(lm, [FACT], hp))
    losses = edit.numbers.get("losses", [])
    assert len(losses) < 2 or losses[-1] < losses[0]
    token = lm.tokenizer(" Paris", add_special_tokens=False).input_ids[0]
    with lm.active(edit.patches):
        after = lm.logits(prompts)
        assert after[0].softmax(-1)[token] > before[0].softmax(-1)[token]
        assert all(0 < layer_of(lm, patch)["norm_ratio"] < 100 for patch in edit.patches)
    assert torch.equal(lm.logits(prompts), before)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_methods_that_need_the_dense_matrix_refuse_in_a_sentence(lm: LM, name: str) -> None:
    if name in ("ft-l", "ft-m", "locft-bf"):
        with pytest.raises(UnsupportedModel, match=f"{name} trains a dense matrix.*quantised"):
            method_of(lm, FACT, name)
    else:
        assert method_of(lm, FACT, name).name == name


def test_nothing_is_merged_into_it(lm: LM, tmp_path: Path) -> None:
    base = Base(
        name=lm.name, source=lm.source, fingerprint=lm.fingerprint, model_type="llama",
        load_in=lm.load_in,
    )  # fmt: skip
    with pytest.raises(NotExportable, match=r"is quantised.*--format lora"):
        finish(export_checkpoint(base, [], [], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("load_in", KINDS)
def test_without_bitsandbytes_it_is_one_sentence(
    load_in: str, tiny_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    source = resolve_model(str(tiny_folder("llama")))
    with pytest.raises(MissingResource, match="needs bitsandbytes, which is not installed") as it:
        finish(load_model(source, load_in=load_in))
    assert it.value.exit_code == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in": "3bit"}, "unknown --load-in '3bit'"),
        ({"device_map": "even"}, "unknown --device-map 'even'"),
        ({"device_map": "auto", "device": "cpu"}, "exclude each other"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, str], message: str, tiny_folder: Folder) -> None:
    with pytest.raises(BadSetting, match=message):
        finish(load_model(resolve_model(str(tiny_folder("llama"))), **options))


def test_a_device_map_gives_the_same_model(tiny_folder: Folder) -> None:
    """On the CPU alone the map has one device; the way through the library is another."""
    folder = tiny_folder("llama")
    _, mapped = finish(LM.load(str(folder), dtype="fp32", device_map="auto"))
    _, plain = finish(LM.load(str(folder), dtype="fp32", device=str(mapped.device)))
    prompts = [plain.statement("The Space Needle is in")]
    assert torch.equal(mapped.logits(prompts), plain.logits(prompts))
    assert mapped.fingerprint == plain.fingerprint


def test_an_offloaded_weight_has_its_norm(tiny_folder: Folder, tmp_path: Path) -> None:
    from accelerate import cpu_offload

    lm = loaded(tiny_folder("llama"), "")
    site = lm.model.get_submodule(lm.site("mlp_out", 0))
    true = quantised.norm(site)
    cpu_offload(lm.model, execution_device=torch.device("cpu"))
    assert site.weight.is_meta
    assert quantised.norm(site) == true
