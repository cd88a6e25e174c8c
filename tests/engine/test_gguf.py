"""GGUF files: converted once, to the very model they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers as hf

from engine import hardware, paths
from engine.catalog import resolve_model
from engine.checkpoint import SINGLE
from engine.errors import ModelUnavailable, OutOfMemory
from engine.events import Loading
from engine.loading import Loadout, load_model
from tests.engine.support import finish
from tests.tiny import tiny_model


def load(place: Path) -> Loadout:
    """In fp32, without its events."""
    return finish(load_model(resolve_model(str(place)), dtype="fp32"))[1]


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in the order of GGUF's rotary embedding."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_gguf(file: Path, *, quantised: bool = False) -> Any:
    """A tiny LLaMA as GGUF, with a byte-level tokenizer; the model it holds."""
    model = tiny_model("llama", width=32, mlp_width=64, vocab_size=300, pad_token_id=None)
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(300)
    letters = list(hf.convert_slow_tokenizer.bytes_to_unicode().values())
    extra = [f"{a}{b}" for a in "abcdefg" for b in "hijklmn"][: 300 - 256 - 2]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*letters, "<s>", "</s>", *extra])
    writer.add_token_types([1] * 256 + [3, 3] + [1] * len(extra))
    writer.add_token_merges([f"{pair[0]} {pair[1]}" for pair in extra])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    }  # fmt: skip
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in model.state_dict().items():
        if quantised and tensor.dim() == 2:
            packed = gguf.quants.quantize(tensor.numpy(), kind)
            tensor.copy_(torch.from_numpy(gguf.quants.dequantize(packed, kind)))
        stored = tensor
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            stored = permuted(stored, heads) if part in name else stored
        for old, new in names.items():
            name = name.replace(old, new)
        data = stored.contiguous().numpy()
        if quantised and tensor.dim() == 2:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.mark.parametrize("quantised", [False, True])
def test_a_gguf_file_gives_the_model_it_was_made_from(tmp_path: Path, quantised: bool) -> None:
    file = tmp_path / "tiny.gguf"
    model = write_gguf(file, quantised=quantised)
    out = load(file)
    ids = torch.arange(20, 30)[None]
    torch.testing.assert_close(out.model(input_ids=ids).logits, model(input_ids=ids).logits)
    text = "ah, beim Fjord"
    assert out.tokenizer.decode(out.tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert out.source == str(file)


def test_a_gguf_file_is_converted_once(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    source = resolve_model(str(tmp_path))  # a folder that holds it
    events, first = finish(load_model(source, dtype="fp32"))
    converting = [e for e in events if isinstance(e, Loading) and e.stage == "convert"]
    assert converting[-1].done == converting[-1].total == 21
    events, second = finish(load_model(source, dtype="fp32"))
    assert {event.stage for event in events if isinstance(event, Loading)} == {"weights"}
    assert second.folder == first.folder
    assert second.fingerprint == first.fingerprint
    assert first.folder.parent == paths.cache() / "models"
    assert {p.name for p in first.folder.iterdir()} >= {SINGLE, "config.json", "tokenizer.json"}
    write_gguf(file, quantised=True)  # other content under the same name
    assert load(file).folder != first.folder


def test_a_damaged_copy_is_converted_again(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    first = load(file)
    (first.folder / SINGLE).write_bytes(b"")
    assert load(file).fingerprint == first.fingerprint


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    work = load_model(resolve_model(str(file)), dtype="fp32")
    event = next(work)
    assert isinstance(event, Loading)
    assert event.stage == "convert"
    work.close()
    assert [p.suffix for p in (paths.cache() / "models").iterdir()] == [".lock"]
    assert load(file).arch.model_type == "llama"


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelUnavailable, match=r"tiny\.gguf is not a GGUF file"):
        load(file)


def test_a_gguf_that_is_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(ModelUnavailable, match=r"tiny\.gguf cannot be loaded"):
        load(file)
    assert [p.suffix for p in (paths.cache() / "models").iterdir()] == [".lock"]


def test_a_gguf_too_large_to_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    monkeypatch.setattr(hardware, "free_memory", lambda _device: 1000)
    with pytest.raises(OutOfMemory, match=r"tiny\.gguf needs \d MB on cpu"):
        load(file)
