"""From a name's source to a model in memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import gguf
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


def load_model(
    source: ModelSource,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attn: str = "auto",
    trust_remote_code: bool = False,
    offline: bool = False,
) -> Generator[Event, None, Loadout]:
    """Fetches, converts and loads what is not there yet, with `Loading` events.

    dtype   "auto" (bf16 on GPUs and on CPUs with native bf16, else fp32), "fp32", "bf16", "fp16"
    device  "auto" (the first GPU, else the CPU), or as torch names it
    attn    "auto" (eager on the CPU, sdpa on GPUs where the family has it), or by name

    Raises ModelUnavailable, AssetUnavailable, NoSpace, OutOfMemory, UnsupportedModel and
    BadSetting (dtype, device or attn).
    """
    from transformers import AutoConfig

    if attn not in _ATTENTIONS:
        raise BadSetting(f"unknown attention {attn!r}.", f"Known: {', '.join(_ATTENTIONS)}.")
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
    needed = int(checkpoint.parameters * precision.itemsize * _HEADROOM)
    require_memory(source.name, needed, where, precision)
    tokenizer = _tokenizer(checkpoint.folder, trust_remote_code)
    model = yield from _weights(
        checkpoint,
        arch,
        config,
        dtype=precision,
        device=where,
        attn=attn,
        trust_remote_code=trust_remote_code,
    )
    return Loadout(
        model=model,
        tokenizer=tokenizer,
        arch=arch,
        fingerprint=fingerprint(checkpoint),
        dtype=precision,
        device=where,
        name=source.name,
        source=str(source),
        folder=checkpoint.folder,
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
    trust_remote_code: bool,
) -> Generator[Event, None, Any]:
    """The model itself. Every weight comes from the files: none is left at random."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if arch.encoder else AutoModelForCausalLM
    progress = Progress("weights", unit="tensors")

    def work() -> tuple[Any, dict[str, Any]]:
        loaded: tuple[Any, dict[str, Any]] = auto.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            attn_implementation=_attention(attn, auto, config, device),
            device_map=None if device.type == "cpu" else {"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
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
    return model.eval().requires_grad_(False)


def _attention(attn: str, auto: Any, config: Any, device: torch.device) -> str:
    if attn != "auto":
        return attn
    if device.type == "cpu":
        return "eager"
    family = auto._model_mapping.get(type(config), None)
    return "sdpa" if getattr(family, "_supports_sdpa", False) else "eager"
