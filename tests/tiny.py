"""Tiny random models of every family, and folders of them: nothing is downloaded.

Two blocks of width 16. Weights are large enough for answers to differ, biases are not zero,
and the MLP is 24 wide, so that neither a forgotten bias nor a wrong transpose goes unseen;
`mlp_width=16` makes the key/value matrices square, where a wrong transpose has the right shape.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.engine import support

WIDTH = 16
LAYERS = 2
MLP_WIDTH = 24
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Config = Callable[..., Any]


def _gpt2(kind: type, **own: Any) -> Config:
    def config(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
        fields = {"n_embd": width, "n_inner": mlp_width, "n_layer": layers, "n_head": 4}
        return kind(n_positions=256, **fields, **own, **more)

    return config


def _neo(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
    fields = {"hidden_size": width, "intermediate_size": mlp_width, "num_layers": layers}
    more = {"attention_types": [[["global", "local"], layers // 2]], "window_size": 64} | more
    return hf.GPTNeoConfig(num_heads=4, max_position_embeddings=256, **fields, **more)


def _plain(kind: type, **own: Any) -> Config:
    """Families that use the usual names of fields."""

    def config(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
        fields = {
            "hidden_size": width,
            "intermediate_size": mlp_width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        }
        return kind(**(fields | own | more))

    return config


def _opt(**own: Any) -> Config:
    def config(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
        more = {"word_embed_proj_dim": width} | own | more
        return _plain(hf.OPTConfig, ffn_dim=mlp_width)(width, mlp_width, layers, **more)

    return config


def _bloom(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
    """BLOOM's MLP is always four times as wide as the model."""
    return hf.BloomConfig(hidden_size=width, n_layer=layers, n_head=4, **more)


def _falcon(**own: Any) -> Config:
    def config(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
        fields = {"ffn_hidden_size": mlp_width, "multi_query": True} | own
        return _plain(hf.FalconConfig, **fields)(width, mlp_width, layers, **more)

    return config


def _t5(**own: Any) -> Config:
    def config(width: int, mlp_width: int, layers: int, **more: Any) -> Any:
        fields = {"d_model": width, "d_ff": mlp_width, "num_layers": layers, "d_kv": 4}
        more = {"decoder_start_token_id": 0, "num_decoder_layers": layers + 1} | own | more
        return hf.T5Config(num_heads=4, **fields, **more)

    return config


_GQA = {"num_key_value_heads": 2}
_GEMMA = _GQA | {"head_dim": 8}
_GEMMA_LOCAL = _GEMMA | {"sliding_window": 64, "query_pre_attn_scalar": 8}

#: Variants of families: what an `Arch` row reads from the configuration is here both ways.
FAMILIES: dict[str, Config] = {
    "gpt2": _gpt2(hf.GPT2Config),
    "gptj": _gpt2(hf.GPTJConfig, rotary_dim=4),
    "gpt_neo": _neo,
    "gpt_neox": _plain(hf.GPTNeoXConfig),
    "gpt_neox-sequential": _plain(hf.GPTNeoXConfig, use_parallel_residual=False),
    "opt": _opt(),
    "opt-post-norm": _opt(do_layer_norm_before=False, word_embed_proj_dim=8),
    "bloom": _bloom,
    "phi": _plain(hf.PhiConfig),
    "llama": _plain(hf.LlamaConfig, **_GQA),
    "mistral": _plain(hf.MistralConfig, **_GQA),
    "qwen2": _plain(hf.Qwen2Config, **_GQA),
    "qwen3": _plain(hf.Qwen3Config, **_GQA, head_dim=8),
    "gemma": _plain(hf.GemmaConfig, **_GEMMA),
    "gemma2": _plain(hf.Gemma2Config, **_GEMMA_LOCAL),
    "gemma3_text": _plain(hf.Gemma3TextConfig, **_GEMMA_LOCAL),
    "falcon": _falcon(),
    "falcon-sequential": _falcon(parallel_attn=False, alibi=True),
    "falcon-new": _falcon(new_decoder_architecture=True, num_kv_heads=2),
    "t5": _t5(),
    "t5-gated": _t5(feed_forward_proj="gated-gelu"),
}
CAUSAL = tuple(name for name in FAMILIES if not name.startswith("t5"))

_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "llama": support.llama,
    "mistral": support.llama,
    "gemma": support.gemma,
    "gemma2": support.gemma,
    "gemma3_text": support.gemma,
    "t5": support.t5,
    "t5-gated": support.t5,
}


def tiny_tokenizer(family: str) -> Any:
    """The kind that the family uses, trained on a few sentences."""
    return _TOKENIZERS.get(family, support.byte_level)()


def tiny_config(
    family: str,
    *,
    width: int = WIDTH,
    mlp_width: int = MLP_WIDTH,
    layers: int = LAYERS,
    **more: Any,
) -> Any:
    """A configuration of a family or variant; `more` overrides its fields."""
    tokenizer = tiny_tokenizer(family)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    pad = tokenizer.pad_token_id
    fields = {"vocab_size": len(tokenizer), "pad_token_id": pad} | ends | more
    return FAMILIES[family](width, mlp_width, layers, **fields)


def tiny_model(family: str, *, seed: int = 0, **fields: Any) -> Any:
    """A frozen fp32 model in evaluation mode with eager attention; a seed repeats it."""
    config = tiny_config(family, **fields)
    seq2seq = config.model_type == "t5"
    auto: Any = hf.AutoModelForSeq2SeqLM if seq2seq else hf.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.25 * noise)
            else:
                parameter.add_(0.1 * noise)  # biases around 0, norms around their neutral value
    return model.eval().requires_grad_(False)


def save_tiny(folder: Path, family: str, *, chat: bool = False, **fields: Any) -> Path:
    """A model folder (safetensors and tokenizer), as a user would have it; the folder."""
    tiny_model(family, **fields).save_pretrained(folder)
    tokenizer = tiny_tokenizer(family)
    tokenizer.save_pretrained(folder)
    if chat:
        (folder / "chat_template.jinja").write_text(CHATML)
    return folder
