"""Configurations of published models, as their authors give them: nothing is allocated."""

from __future__ import annotations

from typing import Any

import transformers as hf


def llama(**fields: Any) -> Any:
    return hf.LlamaConfig(vocab_size=32000, **fields)


GEMMA2 = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
#: name -> configuration, (layers, width, MLP width), parameters in units of 1e9
FULL: dict[str, tuple[Any, tuple[int, int, int], float]] = {
    "gpt2-xl": (
        hf.GPT2Config(n_embd=1600, n_layer=48, n_head=25),
        (48, 1600, 6400),
        1.56,
    ),
    "gpt-j-6b": (hf.GPTJConfig(n_embd=4096, n_layer=28, n_head=16), (28, 4096, 16384), 6.05),
    "gpt-neo-2.7b": (
        hf.GPTNeoConfig(
            hidden_size=2560,
            num_layers=32,
            num_heads=20,
            attention_types=[[["global", "local"], 16]],
        ),
        (32, 2560, 10240),
        2.65,
    ),
    "gpt-neox-20b": (
        hf.GPTNeoXConfig(
            vocab_size=50432,
            hidden_size=6144,
            num_hidden_layers=44,
            num_attention_heads=64,
            intermediate_size=24576,
        ),
        (44, 6144, 24576),
        20.55,
    ),
    "pythia-1b": (
        hf.GPTNeoXConfig(
            vocab_size=50304,
            hidden_size=2048,
            num_hidden_layers=16,
            num_attention_heads=8,
            intermediate_size=8192,
        ),
        (16, 2048, 8192),
        1.01,
    ),
    "opt-6.7b": (
        hf.OPTConfig(
            hidden_size=4096,
            word_embed_proj_dim=4096,
            num_hidden_layers=32,
            num_attention_heads=32,
            ffn_dim=16384,
        ),
        (32, 4096, 16384),
        6.66,
    ),
    "opt-350m": (
        hf.OPTConfig(
            hidden_size=1024,
            word_embed_proj_dim=512,
            num_hidden_layers=24,
            num_attention_heads=16,
            ffn_dim=4096,
            do_layer_norm_before=False,
        ),
        (24, 1024, 4096),
        0.33,
    ),
    "bloom-7b1": (
        hf.BloomConfig(vocab_size=250880, hidden_size=4096, n_layer=30, n_head=32),
        (30, 4096, 16384),
        7.07,
    ),
    "phi-2": (
        hf.PhiConfig(
            vocab_size=51200,
            hidden_size=2560,
            intermediate_size=10240,
            num_hidden_layers=32,
            num_attention_heads=32,
        ),
        (32, 2560, 10240),
        2.78,
    ),
    "llama-2-7b": (
        llama(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32),
        (32, 4096, 11008),
        6.74,
    ),
    "llama-2-13b": (
        llama(
            hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
        ),
        (40, 5120, 13824),
        13.02,
    ),
    "llama-3-8b": (
        hf.LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_key_value_heads=8,
        ),
        (32, 4096, 14336),
        8.03,
    ),
    "llama-3.2-1b": (
        hf.LlamaConfig(
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_key_value_heads=8,
            head_dim=64,
            tie_word_embeddings=True,
        ),
        (16, 2048, 8192),
        1.24,
    ),
    "mistral-7b": (hf.MistralConfig(), (32, 4096, 14336), 7.24),
    "qwen2.5-7b": (
        hf.Qwen2Config(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        ),
        (28, 3584, 18944),
        7.62,
    ),
    "qwen2.5-0.5b": (
        hf.Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        (24, 896, 4864),
        0.49,
    ),
    "qwen3-8b": (
        hf.Qwen3Config(
            vocab_size=151936,
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=36,
            num_key_value_heads=8,
            head_dim=128,
        ),
        (36, 4096, 12288),
        8.19,
    ),
    "gemma-2b": (
        hf.GemmaConfig(
            hidden_size=2048,
            intermediate_size=16384,
            num_hidden_layers=18,
            num_attention_heads=8,
            num_key_value_heads=1,
        ),
        (18, 2048, 16384),
        2.51,
    ),
    "gemma-2-2b": (
        hf.Gemma2Config(hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, **GEMMA2),
        (26, 2304, 9216),
        2.61,
    ),
    "gemma-3-1b": (
        hf.Gemma3TextConfig(
            hidden_size=1152,
            intermediate_size=6912,
            num_hidden_layers=26,
            num_attention_heads=4,
            num_key_value_heads=1,
            vocab_size=262144,
        ),
        (26, 1152, 6912),
        1.00,
    ),
    "gemma-3-4b": (
        hf.Gemma3Config(
            text_config=hf.Gemma3TextConfig(
                hidden_size=2560, intermediate_size=10240, num_hidden_layers=34, **GEMMA2
            ).to_dict(),
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
                "patch_size": 14,
            },
        ),
        (34, 2560, 10240),
        4.30,
    ),
    "falcon-7b": (hf.FalconConfig(), (32, 4544, 18176), 6.92),
    "falcon-40b": (
        hf.FalconConfig(
            hidden_size=8192,
            num_hidden_layers=60,
            num_attention_heads=128,
            num_kv_heads=8,
            new_decoder_architecture=True,
        ),
        (60, 8192, 32768),
        41.3,
    ),
    "t5-small": (hf.T5Config(), (6, 512, 2048), 0.06),
    "t5-3b": (
        hf.T5Config(d_model=1024, d_ff=16384, num_layers=24, num_heads=32, d_kv=128),
        (24, 1024, 16384),
        2.85,
    ),
    "t5-xl-lm-adapt": (
        hf.T5Config(
            d_model=2048,
            d_ff=5120,
            num_layers=24,
            num_heads=32,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        ),
        (24, 2048, 5120),
        2.78,
    ),
}
