"""Where things are in each family of models: the only file that knows module names.

One frozen `Arch` row per Hugging Face `model_type`, nothing per checkpoint. What varies
within a family is read from the configuration (`when`). Adding a family is one row here,
one tiny model in tests/tiny.py and one full-size configuration in tests/engine/test_arch.py.

The key/value matrix W of a block is its `mlp_out`: its input is the key k, its output the
value W k, which is added to the residual stream (through `post_mlp_norm` where there is one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from .errors import UnsupportedModel

_ROLES = ("block", "mlp_in", "mlp_out", "attn_out", "post_mlp_norm")
_ONCE = ("embed", "final_norm", "lm_head")


@dataclass(frozen=True, kw_only=True)
class Arch:
    """Module names of one family; `{i}` stands for the 0-based layer.

    blocks         the nn.ModuleList of blocks; a block's output is the residual stream
    mlp_in         up side of the MLP, relative to a block; two when gated (gate, up)
    mlp_out        down side of the MLP, relative to a block: key in, value out
    attn_out       output projection of the attention, relative to a block
    final_norm     norm before the head; None where there is none (post-norm OPT)
    embed          the embedding module that is called, output [batch, pos, embedding width]
    lm_head        its input is what the logits are linear in
    transposed     weights stored [in, out] (Conv1D) instead of [out, in] (Linear)
    parallel       attention and MLP read the same residual stream
    post_mlp_norm  norm after the MLP and before the residual addition, relative to a block
    bounded        positions are looked up in a table: what is longer cannot be read at all
    when           fields replaced where the named configuration attribute is true, in order
    layers_key     configuration attribute with the number of blocks
    mlp_width_key  configuration attribute with d_ff; absent or None means 4 x width
    encoder        the other stack of an encoder-decoder; sites are the decoder's otherwise

    `arch_for` fills in n_layers (L), width (d) and mlp_width (d_ff).
    """

    model_type: str
    blocks: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    attn_out: str
    final_norm: str | None
    embed: str
    lm_head: str = "lm_head"
    transposed: bool = False
    parallel: bool = False
    post_mlp_norm: str | None = None
    bounded: bool = False
    when: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    layers_key: str = field(default="num_hidden_layers", repr=False)
    mlp_width_key: str = field(default="intermediate_size", repr=False)
    encoder: Arch | None = None
    n_layers: int = 0
    width: int = 0
    mlp_width: int = 0

    @property
    def stack(self) -> str:
        """ "decoder" or "encoder-decoder"."""
        return "encoder-decoder" if self.encoder else "decoder"

    @property
    def reader(self) -> Arch:
        """The stack that reads the prompt, and so the subject: the encoder, where there is one."""
        return self.encoder or self

    @property
    def gated(self) -> bool:
        """The key is activation(gate) * up."""
        return len(self.mlp_in) > 1

    def site(self, role: str, layer: int = 0) -> str:
        """Full name of a module, as in `model.get_submodule`.

        role: "block", "mlp_in", "mlp_out", "attn_out", "post_mlp_norm" (of block `layer`),
        "embed", "final_norm", "lm_head" (once per model; `layer` is ignored).
        "mlp_in" of a gated MLP is its up half; `sites` gives both. A negative layer counts
        from the last. Raises IndexError for a layer that is not there and KeyError for a
        role that the model does not have.
        """
        return self.sites(role, layer)[-1]

    def sites(self, role: str, layer: int = 0) -> tuple[str, ...]:
        """As `site`, with both halves of a gated `mlp_in`: (gate, up)."""
        if role not in _ROLES + _ONCE:
            raise KeyError(f"no role {role!r}; roles: {', '.join(_ROLES + _ONCE)}")
        names = "" if role == "block" else getattr(self, role)
        if names is None:
            raise KeyError(f"{self.model_type} has no {role}")
        if role in _ONCE:
            return (names,)
        if not -self.n_layers <= layer < self.n_layers:
            raise IndexError(f"layer {layer} of a model with {self.n_layers} layers")
        block = f"{self.blocks}.{layer % self.n_layers}"
        if role == "block":
            return (block,)
        parts = names if isinstance(names, tuple) else (names,)
        return tuple(f"{block}.{part}" for part in parts)


def weight_of(module: nn.Module, arch: Arch) -> Tensor:
    """The weight of a site's module as a view [out, in]: `weight @ key` is the output.

    Orientation is the family's, never guessed from the shape: square matrices exist.
    Raises UnsupportedModel for a quantised weight, which has no such view.
    """
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.dim() != 2:
        raise UnsupportedModel(
            f"the weight of this {type(module).__name__} is quantised.",
            "Load the model without --load-in for methods that need the dense matrix.",
        )
    linear = isinstance(module, nn.Linear)  # the head of a Conv1D family is one
    return weight.T if arch.transposed and not linear else weight


def _gpt2(model_type: str, attn_out: str, **fields: Any) -> Arch:
    """GPT-2 and its descendants that kept `transformer.h`."""
    return Arch(
        model_type=model_type,
        blocks="transformer.h",
        attn_out=attn_out,
        final_norm="transformer.ln_f",
        **{"embed": "transformer.wte", **fields},
    )


def _llama(model_type: str, prefix: str = "model", **fields: Any) -> Arch:
    """The LLaMA layout: gated MLP, RMS norms, sequential."""
    return Arch(
        model_type=model_type,
        blocks=f"{prefix}.layers",
        mlp_in=("mlp.gate_proj", "mlp.up_proj"),
        mlp_out="mlp.down_proj",
        attn_out="self_attn.o_proj",
        final_norm=f"{prefix}.norm",
        embed=f"{prefix}.embed_tokens",
        **fields,
    )


def _t5(stack: str, sublayer: int, layers_key: str, **fields: Any) -> Arch:
    """One T5 stack; the feed-forward is sub-layer 1 of the encoder, 2 of the decoder."""
    ff = f"layer.{sublayer}.DenseReluDense"
    return Arch(
        model_type="t5",
        blocks=f"{stack}.block",
        mlp_in=(f"{ff}.wi",),
        mlp_out=f"{ff}.wo",
        attn_out="layer.0.SelfAttention.o",
        final_norm=f"{stack}.final_layer_norm",
        embed=f"{stack}.embed_tokens",
        when={"is_gated_act": {"mlp_in": (f"{ff}.wi_0", f"{ff}.wi_1")}},
        layers_key=layers_key,
        mlp_width_key="d_ff",
        **fields,
    )


_PARALLEL = MappingProxyType({"parallel": True})
_NEOX_MLP: dict[str, Any] = {"mlp_in": ("mlp.dense_h_to_4h",), "mlp_out": "mlp.dense_4h_to_h"}

_ROWS = (
    _gpt2(
        "gpt2",
        "attn.c_proj",
        bounded=True,
        mlp_in=("mlp.c_fc",),
        mlp_out="mlp.c_proj",
        transposed=True,
        mlp_width_key="n_inner",
    ),
    _gpt2(
        "gptj",
        "attn.out_proj",
        bounded=True,
        mlp_in=("mlp.fc_in",),
        mlp_out="mlp.fc_out",
        parallel=True,
        mlp_width_key="n_inner",
    ),
    _gpt2(
        "gpt_neo",
        "attn.attention.out_proj",
        bounded=True,
        mlp_in=("mlp.c_fc",),
        mlp_out="mlp.c_proj",
    ),
    _gpt2(
        "bloom",
        "self_attention.dense",
        embed="transformer.word_embeddings",
        mlp_width_key="",
        **_NEOX_MLP,
    ),
    _gpt2(
        "falcon",
        "self_attention.dense",
        embed="transformer.word_embeddings",
        mlp_width_key="ffn_hidden_size",
        when={"parallel_attn": _PARALLEL, "new_decoder_architecture": _PARALLEL},
        **_NEOX_MLP,
    ),
    Arch(
        model_type="gpt_neox",
        blocks="gpt_neox.layers",
        attn_out="attention.dense",
        final_norm="gpt_neox.final_layer_norm",
        embed="gpt_neox.embed_in",
        when={"use_parallel_residual": _PARALLEL},
        **_NEOX_MLP,
    ),
    Arch(
        model_type="opt",
        blocks="model.decoder.layers",
        mlp_in=("fc1",),
        mlp_out="fc2",  # sees 2-D input: [batch * pos, d_ff]
        attn_out="self_attn.out_proj",
        final_norm=None,  # OPT-350m is post-norm
        embed="model.decoder.embed_tokens",
        bounded=True,
        mlp_width_key="ffn_dim",
        when={
            "do_layer_norm_before": {"final_norm": "model.decoder.final_layer_norm"},
            "_remove_final_layer_norm": {"final_norm": None},
        },
    ),
    Arch(
        model_type="phi",
        blocks="model.layers",
        mlp_in=("mlp.fc1",),
        mlp_out="mlp.fc2",
        attn_out="self_attn.dense",
        final_norm="model.final_layernorm",
        embed="model.embed_tokens",
        parallel=True,
    ),
    *(_llama(name) for name in ("llama", "mistral", "qwen2", "qwen3", "gemma")),
    *(
        _llama(name, post_mlp_norm="post_feedforward_layernorm")
        for name in ("gemma2", "gemma3_text")
    ),
    # The multimodal Gemma 3: its language model, one level deeper.
    _llama("gemma3", "model.language_model", post_mlp_norm="post_feedforward_layernorm"),
    _t5("decoder", 2, "num_decoder_layers", encoder=_t5("encoder", 1, "num_layers")),
)
ARCHES: Mapping[str, Arch] = MappingProxyType({row.model_type: row for row in _ROWS})


def arch_for(config: Any) -> Arch:
    """The row of a Hugging Face configuration, with what depends on it filled in.

    Raises UnsupportedModel naming the model type and the known ones.
    """
    row = row_for(getattr(config, "model_type", None))
    return _resolve(row, getattr(config, "text_config", None) or config)


def row_for(model_type: object) -> Arch:
    """The row as it stands in the table. Raises UnsupportedModel."""
    row = ARCHES.get(str(model_type))
    if row is None:
        raise UnsupportedModel(
            f"{model_type!r} has no entry in engine/arch.py.",
            f"Known: {', '.join(sorted(ARCHES))}.",
        )
    return row


def _resolve(row: Arch, config: Any) -> Arch:
    changes: dict[str, Any] = {}
    for attribute, replaced in row.when.items():
        if getattr(config, attribute, False):
            changes |= replaced
    width = int(config.hidden_size)
    return dataclasses.replace(
        row,
        **changes,
        n_layers=int(getattr(config, row.layers_key)),
        width=width,
        mlp_width=int(getattr(config, row.mlp_width_key, None) or 4 * width),
        encoder=_resolve(row.encoder, config) if row.encoder else None,
    )
