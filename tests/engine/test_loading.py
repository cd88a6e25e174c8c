"""Loading models from folders: precision, memory, damage, fingerprints."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from engine import hardware
from engine.catalog import ModelSource, resolve_model
from engine.checkpoint import INDEX, SINGLE, read_checkpoint
from engine.errors import BadSetting, ModelUnavailable, OutOfMemory, UnsupportedModel
from engine.events import Loading
from engine.fingerprint import fingerprint
from engine.loading import Loadout, load_model
from tests.engine.support import finish
from tests.tiny import FAMILIES, tiny_model

Folders = Callable[..., Path]


def load(place: Path, **options: Any) -> Loadout:
    """In fp32 unless told otherwise, without its events."""
    return finish(load_model(resolve_model(str(place)), **({"dtype": "fp32"} | options)))[1]


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Folders) -> Path:
    """A model folder that the test may damage: LLaMA in several shards."""
    place = tmp_path / "model"
    model = hf.AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=torch.float32)
    shutil.copytree(tiny_folder("llama"), place, ignore=shutil.ignore_patterns(SINGLE))
    model.save_pretrained(place, max_shard_size="12KB")
    assert len(list(place.glob("model-*.safetensors"))) > 2
    return place


# -- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_with_all_its_weights(family: str, tiny_folder: Folders) -> None:
    out = load(tiny_folder(family))
    expected = tiny_model(family)
    got = dict(out.model.named_parameters())
    for name, parameter in expected.named_parameters():
        assert torch.equal(parameter, got[name]), name
        assert not got[name].requires_grad
    assert not out.model.training
    assert out.model.config._attn_implementation == "eager"
    assert out.arch.model_type == expected.config.model_type
    assert out.tokenizer.is_fast


def test_shards_load_as_one_file_does(folder: Path, tiny_folder: Folders) -> None:
    single, sharded = load(tiny_folder("llama")), load(folder)
    ids = torch.arange(3, 9)[None]
    assert torch.equal(single.model(input_ids=ids).logits, sharded.model(input_ids=ids).logits)
    assert single.fingerprint == sharded.fingerprint


def test_loading_is_told_in_events(tiny_folder: Folders) -> None:
    events, out = finish(load_model(resolve_model(str(tiny_folder("gpt2"))), dtype="fp32"))
    last = events[-1]
    assert isinstance(last, Loading)
    assert (last.stage, last.unit) == ("weights", "tensors")
    assert last.done == last.total > 20
    assert (out.name, out.source) == (str(tiny_folder("gpt2")),) * 2


def test_nothing_reaches_the_terminal(
    tiny_folder: Folders, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    load(tiny_folder("gpt2"))
    hf.utils.logging.get_logger("transformers.models").warning("a remark")
    assert capfd.readouterr() == ("", "")
    assert "a remark" in caplog.text


def test_closing_stops_the_loading(tiny_folder: Folders) -> None:
    work = load_model(resolve_model(str(tiny_folder("gpt2"))), dtype="fp32")
    next(work)
    work.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("llm-edit")]
    assert load(tiny_folder("gpt2")).arch.model_type == "gpt2"


def test_a_separate_head_stays_separate(tmp_path: Path, tiny_folder: Folders) -> None:
    """T5 1.1: the library ties heads by default, its published checkpoints do not."""
    place = shutil.copytree(tiny_folder("t5-gated"), tmp_path / "t5")
    weights = load_file(place / SINGLE)
    weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"])
    save_file(weights, place / SINGLE, metadata={"format": "pt"})
    model = load(place).model
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    assert torch.equal(model.shared.weight, weights["shared.weight"])


# -- damage ---------------------------------------------------------------------------------------


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: next(folder.glob(name)).unlink()


def cut(folder: Path) -> None:
    file = next(folder.glob("model-00002*"))
    file.write_bytes(file.read_bytes()[:-10])


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: next(iter(sorted(folder.glob(name)))).write_bytes(content) and None


def lose_tensor(folder: Path) -> None:
    """The index names a tensor that its shard does not hold."""
    file = sorted(folder.glob("model-0*"))[0]
    weights = load_file(file)
    weights.popitem()
    save_file(weights, file, metadata={"format": "pt"})


def lose_from_index_too(folder: Path) -> None:
    """A tensor of the family that is nowhere."""
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"]["model.layers.1.mlp.down_proj.weight"]
    (folder / INDEX).write_text(json.dumps(index))
    for file in folder.glob("model-0*"):
        weights = load_file(file)
        weights.pop("model.layers.1.mlp.down_proj.weight", None)
        save_file(weights, file, metadata={"format": "pt"})


def only_pickles(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 20}))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "shard": (remove("model-00002*"), r"lacks model-00002-of-0000\d\.safetensors of \d files of"),
    "index": (remove(INDEX), rf"has shards but lacks {INDEX}"),
    "config broken": (overwrite("config.json", b"{"), r"config\.json is not JSON"),
    "config list": (overwrite("config.json", b"[]"), r"config\.json is not a JSON object"),
    "index empty": (overwrite(INDEX, b"{}"), r"has no weight_map"),
    "cut": (cut, r"model-00002\S* is cut short: [\d,]+ of [\d,]+ bytes"),
    "header": (
        overwrite("model-00001*", b"x" * 99),
        r"not a safetensors file: its header is damag",
    ),
    "header json": (overwrite("model-00001*", b"\x08" + b"\0" * 7 + b"notjson!"), r"not a safeten"),
    "empty": (overwrite("model-00001*", b""), r"not a safetensors file: its header is damaged"),
    "tensor": (lose_tensor, rf"lacks the tensor \S+ that {INDEX} names"),
    "tensor everywhere": (lose_from_index_too, r"lacks 1 tensors of a llama model, model\.layers"),
    "pickles": (only_pickles, r"only pickled weights \(pytorch_model\.bin\), which can run code"),
    "tokenizer": (
        lambda folder: [file.unlink() for file in folder.glob("token*")],
        r"has no tokenizer \(tokenizer\.json\)",
    ),
    "tokenizer broken": (overwrite("tokenizer.json", b"{}"), r"cannot be loaded"),
    "shapes": (other_shape, r"cannot be loaded"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_gets_one_clear_line(kind: str, folder: Path) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ModelUnavailable, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in caught.value.message


def test_no_weights_at_all(tmp_path: Path, tiny_folder: Folders) -> None:
    shutil.copy(tiny_folder("gpt2") / "config.json", tmp_path)
    with pytest.raises(ModelUnavailable, match=rf"has no weights \({SINGLE}, or {INDEX}"):
        load(tmp_path)
    source = ModelSource(name="x", kind="folder", place=str(tmp_path / "gone"))
    with pytest.raises(ModelUnavailable, match=r"gone has no config\.json"):
        finish(load_model(source))


def test_an_unknown_family_is_refused_before_its_weights_are_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("mamba2", "no-such-family"):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": name}))
        with pytest.raises(UnsupportedModel, match=rf"'{name}' has no entry .* Known: bloom"):
            load(folder)


# -- precision, device, memory --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("float16", torch.float16)],
)
def test_dtype(wanted: str, dtype: torch.dtype, tiny_folder: Folders) -> None:
    out = load(tiny_folder("llama"), dtype=wanted)
    assert out.dtype == dtype == out.model.dtype
    assert {parameter.dtype for parameter in out.model.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags\t: fpu avx512f avx512_bf16 amx_tile", torch.bfloat16),
        ("Features\t: fp asimd bf16", torch.bfloat16),
        ("flags\t: fpu avx512f", torch.float32),
        ("", torch.float32),
    ],
)
def test_auto_dtype_is_bf16_where_the_cpu_has_it(
    flags: str, dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{flags}\n\n")
    monkeypatch.setattr(hardware, "_CPU_INFO", file)
    hardware.cpu_has_bf16.cache_clear()
    try:
        assert load(tiny_folder("llama"), dtype="auto", device="cpu").dtype == dtype
    finally:
        hardware.cpu_has_bf16.cache_clear()


def test_settings_that_mean_nothing(tiny_folder: Folders) -> None:
    with pytest.raises(BadSetting, match=r"unknown dtype 'int3'\. Try auto, fp32, bf16 or fp16"):
        load(tiny_folder("llama"), dtype="int3")
    with pytest.raises(BadSetting, match="unknown device 'warp'"):
        load(tiny_folder("llama"), device="warp")
    with pytest.raises(BadSetting, match=r"no device 'cuda:99': torch sees \d+ CUDA devices"):
        load(tiny_folder("llama"), device="cuda:99")
    with pytest.raises(BadSetting, match="unknown attention 'none'"):
        load(tiny_folder("llama"), attn="none")
    with pytest.raises(BadSetting, match="T5 overflows in fp16"):
        load(tiny_folder("t5"), dtype="fp16")


def test_attention_by_name(tiny_folder: Folders) -> None:
    assert load(tiny_folder("llama"), attn="sdpa").model.config._attn_implementation == "sdpa"
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load(tiny_folder("gpt_neo"), attn="sdpa")  # the library has none for this family


def test_too_little_memory_is_said_before_loading(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tiny_folder("llama")
    count = sum(p.numel() for p in tiny_model("llama").parameters())
    assert read_checkpoint(place).parameters == count
    monkeypatch.setattr(hardware, "free_memory", lambda _device: 3 * count)
    with pytest.raises(OutOfMemory, match=r"needs 0 MB on cpu as float32; 0 MB are free.*--dtype"):
        load(place)
    assert load(place, dtype="bf16").dtype == torch.bfloat16  # half of it fits


def test_free_memory_is_that_of_the_machine_or_its_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = hardware.free_memory(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 50
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000000\n")
    used.write_text("2000000\n")
    monkeypatch.setattr(hardware, "_CGROUPS", ((str(limit), str(used)),))
    assert hardware.free_memory(torch.device("cpu")) == 3_000_000
    limit.write_text("max\n")
    assert hardware.free_memory(torch.device("cpu")) > 3_000_000


# -- fingerprint ----------------------------------------------------------------------------------


def test_fingerprint_does_not_depend_on_how_the_model_is_run(tiny_folder: Folders) -> None:
    place = tiny_folder("llama")
    prints = {load(place, dtype=dtype).fingerprint for dtype in ("fp32", "bf16")}
    assert prints == {fingerprint(read_checkpoint(place))}
    assert len(prints.pop()) == 64


def test_fingerprint_ignores_how_the_file_was_written(folder: Path) -> None:
    before = fingerprint(read_checkpoint(folder))
    config = json.loads((folder / "config.json").read_text())
    other = {"transformers_version": "9", "use_cache": False, "new_key": None}
    (folder / "config.json").write_text(json.dumps(other | config | other, indent=7))
    assert fingerprint(read_checkpoint(folder)) == before


def test_fingerprint_moves_with_configuration_names_and_weights(folder: Path) -> None:
    seen = {fingerprint(read_checkpoint(folder))}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    seen.add(fingerprint(read_checkpoint(folder)))
    for file in sorted(folder.glob("model-*")):
        original = load_file(file)
        for name in original:
            changed = {key: t.clone() for key, t in original.items()}
            changed[name] += 0.01 * torch.randn(changed[name].shape)  # a slight fine-tuning
            save_file(changed, file, metadata={"format": "pt"})
            seen.add(fingerprint(read_checkpoint(folder)))
        save_file(original, file, metadata={"format": "pt"})
    assert len(seen) == 2 + len(read_checkpoint(folder).tensors)
