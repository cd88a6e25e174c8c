"""Every row of engine/arch.py, proved on a tiny model and on full-size configurations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from engine.arch import ARCHES, Arch, arch_for, weight_of
from engine.errors import UnsupportedModel
from engine.hooks import capture, patched
from tests.engine.full_sizes import FULL
from tests.tiny import FAMILIES, LAYERS, MLP_WIDTH, WIDTH, tiny_config, tiny_model

#: (variant, mlp width): as tall as wide too, where a wrong transpose has the right shape.
SHAPES = [(name, width) for name in FAMILIES for width in (MLP_WIDTH, WIDTH) if name != "bloom"]
SHAPES.append(("bloom", 4 * WIDTH))
ROLES = ("block", "mlp_in", "mlp_out", "attn_out", "embed", "final_norm", "lm_head")


def inputs(model: Any) -> dict[str, Tensor]:
    """Two rows of five tokens."""
    ids = torch.arange(10).reshape(2, 5) + 5
    if model.config.model_type == "t5":
        return {"input_ids": ids, "decoder_input_ids": ids[:, :4].flip(1)}
    return {"input_ids": ids}


def stacks(arch: Arch) -> list[Arch]:
    return [arch, arch.encoder] if arch.encoder else [arch]


def through(model: Any, site: str) -> tuple[Tensor, Tensor]:
    """Input and output of a site, copied at once: Falcon adds to its MLP's output in place."""
    seen: list[Tensor] = []

    def note(given: Tensor, out: Tensor) -> Tensor:
        seen.extend((given.clone(), out.clone()))
        return out

    with patched(model, {site: note}):
        model(**inputs(model))
    return seen[0], seen[1]


def flat(tensor: Tensor) -> Tensor:
    """[rows, width], whatever comes before: OPT's MLP sees positions of all rows in one list."""
    return tensor.reshape(-1, tensor.shape[-1])


@pytest.mark.parametrize(("family", "mlp_width"), SHAPES)
def test_weight_times_key_is_the_value(family: str, mlp_width: int) -> None:
    model = tiny_model(family, mlp_width=mlp_width)
    for arch in stacks(arch_for(model.config)):
        assert (arch.width, arch.mlp_width) == (WIDTH, mlp_width)
        assert arch.n_layers == len(model.get_submodule(arch.blocks))
        for layer in range(arch.n_layers):
            for role in ("mlp_out", "attn_out"):
                site = arch.site(role, layer)
                module = model.get_submodule(site)
                key, value = through(model, site)
                weight = weight_of(module, arch)
                if role == "mlp_out":
                    assert weight.shape == (WIDTH, mlp_width)
                bias = 0 if module.bias is None else module.bias
                torch.testing.assert_close(flat(key) @ weight.T + bias, flat(value))


@pytest.mark.parametrize(("family", "mlp_width"), SHAPES)
def test_key_comes_from_the_up_side(family: str, mlp_width: int) -> None:
    """With one neuron of the up side silenced, its entry of the key is act(0) everywhere."""
    model = tiny_model(family, mlp_width=mlp_width)
    for arch in stacks(arch_for(model.config)):
        up = model.get_submodule(arch.site("mlp_in", 1))
        site = arch.site("mlp_out", 1)
        assert weight_of(up, arch).shape == (mlp_width, WIDTH)

        def silence(_given: Tensor, out: Tensor) -> Tensor:
            changed = out.clone()
            changed[..., 3] = 0
            return changed

        with capture(model, site, inputs=True) as before:
            model(**inputs(model))
        with (
            patched(model, {arch.site("mlp_in", 1): silence}),
            capture(model, site, inputs=True) as after,
        ):
            model(**inputs(model))
        assert (flat(after[site])[:, 3] == 0).all()
        others = [i for i in range(mlp_width) if i != 3]
        assert torch.equal(flat(after[site])[:, others], flat(before[site])[:, others])


@pytest.mark.parametrize("family", FAMILIES)
def test_value_is_added_to_the_residual_stream(family: str) -> None:
    model = tiny_model(family)
    for arch in stacks(arch_for(model.config)):
        site, block = arch.site("mlp_out", 0), arch.site("block", 0)
        shift = torch.linspace(-1, 1, WIDTH)
        with capture(model, block, site) as before:
            model(**inputs(model))
        change = {site: lambda _given, out, shift=shift: out + shift}
        with patched(model, change), capture(model, block) as after:
            model(**inputs(model))
        expected = shift.expand_as(before[block])
        if arch.post_mlp_norm:
            norm = model.get_submodule(arch.site("post_mlp_norm", 0))
            value = before[site]
            expected = norm(value + shift) - norm(value)
        moved = after[block] - before[block]
        if family == "opt-post-norm":  # the norm comes after the addition
            assert not torch.allclose(moved, expected)
        else:
            torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_parallel_means_the_mlp_does_not_see_its_blocks_attention(family: str) -> None:
    model = tiny_model(family)
    for arch in stacks(arch_for(model.config)):
        attention, up = arch.site("attn_out", 0), arch.site("mlp_in", 0)
        with capture(model, up) as before:
            model(**inputs(model))
        change = {attention: lambda _given, out: out + torch.arange(WIDTH)}
        with patched(model, change), capture(model, up) as after:
            model(**inputs(model))
        assert torch.equal(before[up], after[up]) is arch.parallel


@pytest.mark.parametrize("family", FAMILIES)
def test_ends_of_the_model(family: str) -> None:
    model = tiny_model(family)
    arch = arch_for(model.config)
    embed, head = arch.site("embed"), arch.site("lm_head")
    with capture(model, embed, head) as seen, capture(model, head, inputs=True) as into:
        logits = model(**inputs(model)).logits
    given = inputs(model)
    tokens = given.get("decoder_input_ids", given["input_ids"])
    ratio = seen[embed] / model.get_submodule(embed).weight[tokens]  # Gemma scales
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0, 0])))
    cap = getattr(model.config, "final_logit_softcapping", None)
    expected = cap * torch.tanh(seen[head] / cap) if cap else seen[head]
    torch.testing.assert_close(logits, expected)
    weight = model.get_submodule(head).weight  # a Linear in every family
    bias = getattr(model.get_submodule(head), "bias", None)
    plain = into[head] @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(plain, seen[head])


@pytest.mark.parametrize("family", FAMILIES)
def test_final_norm_is_the_last_thing_before_the_head(family: str) -> None:
    model = tiny_model(family)
    arch = arch_for(model.config)
    if family == "opt-post-norm":
        with pytest.raises(KeyError, match="opt has no final_norm"):
            arch.site("final_norm")
        return
    norm, last = arch.site("final_norm"), arch.site("block", -1)
    with (
        capture(model, norm, inputs=True) as into,
        capture(model, norm) as out,
        capture(model, last) as blocks,
        capture(model, arch.lm_head, inputs=True) as head,
    ):
        model(**inputs(model))
    assert torch.equal(into[norm], blocks[last])
    scale = WIDTH**-0.5 if arch.model_type == "t5" else 1  # a tied T5 head is scaled
    assert torch.equal(out[norm] * scale, head[arch.lm_head])


def test_every_row_has_a_tiny_model() -> None:
    tried = {tiny_config(name).model_type for name in FAMILIES}
    assert tried | {"gemma3"} == set(ARCHES)  # the multimodal one: its full-size test below


def test_sites_are_named_as_the_model_names_them() -> None:
    arch = arch_for(tiny_config("llama"))
    assert arch.site("mlp_out", 1) == "model.layers.1.mlp.down_proj"
    assert arch.site("mlp_out", -1) == "model.layers.1.mlp.down_proj"
    assert arch.site("mlp_in", 0) == "model.layers.0.mlp.up_proj"
    assert arch.sites("mlp_in", 0) == (
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
    )
    assert arch.site("block", 0) == "model.layers.0"
    assert (arch.stack, arch.gated) == ("decoder", True)


@pytest.mark.parametrize("layer", [LAYERS, -LAYERS - 1])
def test_layers_that_are_not_there(layer: int) -> None:
    with pytest.raises(IndexError, match=f"layer {layer} of a model with {LAYERS} layers"):
        arch_for(tiny_config("gpt2")).site("mlp_out", layer)


def test_roles_that_are_not_there() -> None:
    arch = arch_for(tiny_config("gpt2"))
    with pytest.raises(KeyError, match="no role 'mlp'; roles: block, mlp_in"):
        arch.site("mlp")
    with pytest.raises(KeyError, match="gpt2 has no post_mlp_norm"):
        arch.site("post_mlp_norm", 0)


def test_t5_has_two_stacks() -> None:
    arch = arch_for(tiny_config("t5-gated"))
    assert arch.stack == "encoder-decoder"
    assert arch.encoder is not None
    assert (arch.n_layers, arch.encoder.n_layers) == (LAYERS + 1, LAYERS)
    assert arch.site("mlp_out", 0) == "decoder.block.0.layer.2.DenseReluDense.wo"
    assert arch.encoder.site("mlp_out", 0) == "encoder.block.0.layer.1.DenseReluDense.wo"
    assert arch.sites("mlp_in", 0)[0].endswith("wi_0")


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedModel, match=r"'mamba2' has no entry .* Known: bloom, falcon, "):
        arch_for(hf.Mamba2Config())


def test_only_conv1d_is_stored_transposed() -> None:
    model = tiny_model("gpt2", mlp_width=WIDTH)
    arch = arch_for(model.config)
    head = model.get_submodule(arch.lm_head)
    assert torch.equal(weight_of(head, arch), head.weight)
    inner = model.get_submodule(arch.site("mlp_out", 0))
    assert torch.equal(weight_of(inner, arch), inner.weight.T)
    assert weight_of(inner, arch).data_ptr() == inner.weight.data_ptr()  # a view


def test_a_quantised_weight_has_no_dense_view() -> None:
    module = nn.Linear(4, 4)
    module.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match="the weight of this Linear is quantised"):
        weight_of(module, arch_for(tiny_config("llama")))


# -- full size, on the meta device: nothing is allocated ------------------------------------------


@pytest.mark.parametrize("name", FULL)
def test_full_size(name: str) -> None:
    config, shape, billions = FULL[name]
    auto: Any = hf.AutoModelForSeq2SeqLM if config.model_type == "t5" else hf.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert round(total / 1e9, 2) == pytest.approx(billions, rel=0.01, abs=0.005)
    for arch in stacks(arch_for(config)):
        assert (arch.n_layers, arch.width, arch.mlp_width) == shape
        for layer in (0, arch.n_layers // 2, arch.n_layers - 1):
            for role in ROLES:
                if role == "final_norm" and arch.final_norm is None:
                    continue
                for site in arch.sites(role, layer):
                    model.get_submodule(site)  # raises AttributeError when it is not there
            for role, expected in (("mlp_in", shape[:0:-1]), ("mlp_out", shape[1:])):
                for site in arch.sites(role, layer):
                    weight = weight_of(model.get_submodule(site), arch)
                    assert tuple(weight.shape) == expected
            assert weight_of(model.get_submodule(arch.site("attn_out", layer)), arch).shape[0] == (
                arch.width
            )
