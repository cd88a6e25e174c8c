"""From a name's source to a model in memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import gguf, quantised
from .arch import Arch, arch_for, row_for
from .assets import asset, fetch
from .catalog import ModelSource
from .checkpoint import Checkpoint, read_checkpoint
from .errors import BadSetting, ModelUnavailable
from .events import Event
from .fingerprint import fingerprint
from .hardware import choose_device, choose_dtype, require_memory
from .library import counted_bars, in_words, quiet
from .progress import Progress, in_thread

log = logging.getLogger(__name__)

_HEADROOM = 1.1  # of the weights: buffers, one tensor being converted
_ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")


@dataclass(frozen=True, kw_only=True)
class Loadout:
    """A model in memory, frozen and in evaluation mode, and what it came from."""

    model: Any
    tokenizer: Any
    arch: Arch
    fingerprint: str
    dtype: torch.dtype
    device: torch.device
    name: str
    source: str
    folder: Path
    load_in: str = ""


def load_model(
    source: ModelSource,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attn: str = "auto",
    device_map: str = "",
    load_in: str = "",
    trust_remote_code: bool = False,
    offline: bool = False,
) -> Generator[Event, None, Loadout]:
    """Fetches, converts and loads what is not there yet, with `Loading` events.

    dtype   "auto" (bf16 on GPUs and on CPUs with native bf16, else fp32), "fp32", "bf16", "fp16"
    device  "auto" (the first GPU, else the CPU), or as torch names it
    attn    "auto" (eager on the CPU, sdpa on GPUs where the family has it), or by name
    device_map  "auto": spread over all GPUs, then the CPU, then the disk, as there is room
    load_in     "4bit" or "8bit": weights are quantised as they are loaded (bitsandbytes)

    Raises ModelUnavailable, AssetUnavailable, NoSpace, OutOfMemory, UnsupportedModel,
    BadSetting (dtype, device, attn, device_map or load_in) and MissingResource (bitsandbytes).
    """
    from transformers import AutoConfig

    if attn not in _ATTENTIONS:
        raise BadSetting(f"unknown attention {attn!r}.", f"Known: {', '.join(_ATTENTIONS)}.")
    if device_map not in ("", "auto"):
        raise BadSetting(f"unknown --device-map {device_map!r}.", "Known: auto.")
    if device_map and device != "auto":
        raise BadSetting(f"--device-map and --device {device} exclude each other.")
    if load_in:
        quantised.require(load_in)
    quiet()
    where = choose_device(device)
    checkpoint = yield from _checkpoint(source, offline)
    row_for(checkpoint.config.get("model_type"))  # before the library looks closer
    with in_words(checkpoint.folder):
        config = AutoConfig.from_pretrained(
            checkpoint.folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    arch = arch_for(config)
    precision = choose_dtype(dtype, where, arch)
    weights = checkpoint.parameters * precision.itemsize
    if load_in:
        weights = quantised.size(checkpoint, load_in, precision)
    if not device_map:  # what does not fit goes elsewhere
        require_memory(source.name, int(weights * _HEADROOM), where, precision)
    tokenizer = _tokenizer(checkpoint.folder, trust_remote_code)
    model = yield from _weights(
        checkpoint,
        arch,
        config,
        dtype=precision,
        device=where,
        attn=attn,
        device_map=device_map,
        load_in=load_in,
        trust_remote_code=trust_remote_code,
    )
    stored = fingerprint(checkpoint)
    return Loadout(
        model=model,
        tokenizer=tokenizer,
        arch=arch,
        fingerprint=quantised.fingerprint(stored, load_in) if load_in else stored,
        dtype=precision,
        device=where,
        name=source.name,
        source=str(source),
        folder=checkpoint.folder,
        load_in=load_in,
    )


def locate(source: ModelSource, *, offline: bool = False) -> Generator[Event, None, Path]:
    """The folder of a model, fetched and converted when need be, but not loaded."""
    return (yield from _checkpoint(source, offline)).folder


def _checkpoint(source: ModelSource, offline: bool) -> Generator[Event, None, Checkpoint]:
    if source.kind == "hub":
        from .hub import fetch_repo  # the hub client is needed for nothing else

        folder = yield from fetch_repo(source.place, source.revision, offline=offline)
        return read_checkpoint(folder)
    if source.kind == "folder":
        return read_checkpoint(source.path)
    if source.kind == "gguf":
        return (yield from _from_gguf(source.path, ""))
    wanted = asset(source.place)
    made = gguf.folder_for(Path(wanted.file).stem, wanted.sha256)
    try:
        return read_checkpoint(made)  # also when the file it was made from is gone
    except ModelUnavailable:
        file = yield from fetch(wanted)
        return (yield from _from_gguf(file, wanted.sha256))


def _from_gguf(file: Path, digest: str) -> Generator[Event, None, Checkpoint]:
    """The converted copy; one that was damaged since is made again."""
    folder = yield from gguf.converted(file, digest=digest)
    try:
        return read_checkpoint(folder)
    except ModelUnavailable as error:
        log.info("%s; converting %s again", error.message, file)
        shutil.rmtree(folder)
        return read_checkpoint((yield from gguf.converted(file, digest=digest)))


def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """A fast tokenizer: subjects are found through its character offsets."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelUnavailable(
            f"{folder} has no tokenizer (tokenizer.json).",
            "Copy the tokenizer's files into the folder.",
        )
    with in_words(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    if not tokenizer.is_fast:
        raise ModelUnavailable(
            f"the tokenizer of {folder} has no fast form (tokenizer.json).",
            "With sentencepiece installed, save it once with AutoTokenizer.save_pretrained.",
        )
    return tokenizer


_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tokenizer_config.json",
)  # fmt: skip


def _weights(
    checkpoint: Checkpoint,
    arch: Arch,
    config: Any,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attn: str,
    device_map: str,
    load_in: str,
    trust_remote_code: bool,
) -> Generator[Event, None, Any]:
    """The model itself. Every weight comes from the files: none is left at random."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if arch.encoder else AutoModelForCausalLM
    progress = Progress("weights", unit="tensors")
    placed = device_map or (None if device.type == "cpu" and not load_in else {"": device})
    how = {"quantization_config": quantised.configuration(load_in, dtype)} if load_in else {}

    def work() -> tuple[Any, dict[str, Any]]:
        loaded: tuple[Any, dict[str, Any]] = auto.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            attn_implementation=_attention(attn, auto, config, device),
            device_map=placed,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **how,
        )
        return loaded

    with in_words(checkpoint.folder), counted_bars(progress):
        model, info = yield from in_thread(work, progress)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelUnavailable(
            f"{checkpoint.folder} lacks {len(missing)} tensors of a {arch.model_type} model, "
            f"{missing[0]} among them.",
            "Fetch or copy the folder again.",
        )
    return quantised.kept_as_stored(model.eval().requires_grad_(False))


def _attention(attn: str, auto: Any, config: Any, device: torch.device) -> str:
    if attn != "auto":
        return attn
    if device.type == "cpu":
        return "eager"
    family = auto._model_mapping.get(type(config), None)
    return "sdpa" if getattr(family, "_supports_sdpa", False) else "eager"
