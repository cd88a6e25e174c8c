"""Weights in 4 or 8 bits (bitsandbytes): how they are loaded, and how they are read back.

Patches run beside such weights in float32, as beside any other; what cannot be had is the dense
matrix to train or to merge into.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .arch import Arch
from .checkpoint import Checkpoint
from .errors import BadSetting, MissingResource, UnsupportedModel

KINDS = ("4bit", "8bit")
_BYTES = {"4bit": 0.5625, "8bit": 1.01}  # per weight, with the scales of its blocks or rows


def require(load_in: str) -> None:
    """Raises BadSetting for an unknown kind; MissingResource where bitsandbytes is missing."""
    if load_in not in KINDS:
        raise BadSetting(f"unknown --load-in {load_in!r}.", f"Known: {', '.join(KINDS)}.")
    if find_spec("bitsandbytes") is None:
        raise MissingResource(
            f"--load-in {load_in} needs bitsandbytes, which is not installed.",
            "pip install 'llm-edit-chat[quant]', or leave out --load-in.",
        )
    # It says at every product of a model in 8 bits that it computes in float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def configuration(load_in: str, dtype: torch.dtype) -> Any:
    """What the model library is told: 4 bits are NF4, computed in `dtype`; 8 bits LLM.int8()."""
    from transformers import BitsAndBytesConfig

    if load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def fingerprint(of_files: str, load_in: str) -> str:
    """Of the model that comes of these files: another than theirs, with other keys and answers."""
    return hashlib.sha256(f"{of_files} {load_in}".encode()).hexdigest()


def size(checkpoint: Checkpoint, load_in: str, dtype: torch.dtype) -> int:
    """Bytes of the weights in memory. Embeddings and the head stay in `dtype`."""
    config = checkpoint.config.get("text_config") or checkpoint.config
    total = 0.0
    for tensor in checkpoint.tensors:
        count = 1
        for side in tensor.shape:
            count *= side
        linear = len(tensor.shape) == 2 and tensor.shape[0] != config.get("vocab_size")
        total += count * (_BYTES[load_in] if linear else dtype.itemsize)
    return int(total)


def is_quantised(model: nn.Module) -> bool:
    """Whether weights of a loaded model are quantised, by us or in its files."""
    return bool(getattr(model, "is_quantized", False))


def kept_as_stored(model: nn.Module) -> nn.Module:
    """The model, its weights of 4 bits left in the layout that gradients and `dequantised` read.

    On CPUs that multiply bf16, bitsandbytes would rearrange them in the first pass without
    gradients, for a kernel that it fetches from a hub.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model


@torch.no_grad()
def norm(module: nn.Module) -> float:
    """‖W‖_F of a linear map, quantised or not; NaN for a kind of weight that is not known."""
    from accelerate.utils import align_module_device

    with align_module_device(module):  # an offloaded weight is fetched
        weight = dequantised(module)
        return float("nan") if weight is None or weight.is_meta else float(weight.float().norm())


@torch.no_grad()
def column_norms(module: nn.Module, arch: Arch) -> Tensor:
    """‖v_i‖ [in] float32 on the CPU: what each input of a linear map writes, quantised or not.

    Raises UnsupportedModel for a kind of weight that is not known.
    """
    from accelerate.utils import align_module_device

    with align_module_device(module):
        weight = dequantised(module)
        if weight is None:
            raise UnsupportedModel(f"the weight of this {type(module).__name__} cannot be read.")
        side = 1 if arch.transposed and not isinstance(module, nn.Linear) else 0
        found: Tensor = weight.float().norm(dim=side).cpu()
        return found


def dequantised(module: nn.Module) -> Tensor | None:
    """The weight as numbers, as it is stored; None for a kind that is not known."""
    weight = module.weight
    if not isinstance(weight, Tensor):
        return None
    if weight.is_floating_point():
        return weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        found: Tensor = dequantize_4bit(weight.data, state)
        return found
    scales = getattr(weight, "SCB", None)  # of its rows; it goes to `state` in the first pass
    if scales is None:
        scales = getattr(getattr(module, "state", None), "SCB", None)
    if weight.dtype != torch.int8 or not isinstance(scales, Tensor):
        return None
    return weight.data.float() * (scales.float() / 127)[:, None]
