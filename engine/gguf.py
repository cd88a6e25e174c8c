"""GGUF files, converted once into a folder of the cache.

The copy is fp32, the precision that dequantisation gives, so that every run of a model, in
whatever dtype, starts from the same numbers; it loads in about a second, the GGUF in fifteen.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from . import paths
from .errors import ModelUnavailable
from .events import Event
from .fingerprint import sampled_digest
from .hardware import require_memory
from .library import counted_bars, in_words
from .progress import Bar, Progress, in_thread
from .storage import build_once

_GROWTH = 8  # fp32 copy / GGUF of four bits and a little more


def folder_for(name: str, digest: str) -> Path:
    """Where the copy of a GGUF file with this digest is, or will be."""
    return paths.cache() / "models" / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{digest[:12]}"


def converted(file: Path, *, digest: str = "") -> Generator[Event, None, Path]:
    """A folder with the file's model in safetensors and its tokenizer, made unless it is there.

    digest: identifies the content, where it is known already. Raises ModelUnavailable for a
    file that is no GGUF or holds an architecture that cannot be read, NoSpace.
    """
    with file.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise ModelUnavailable(f"{file} is not a GGUF file.", "Fetch or copy it again.")
    folder = folder_for(file.stem, digest or sampled_digest(file))
    make = functools.partial(_convert, file)
    space = file.stat().st_size * _GROWTH
    return (yield from build_once(folder, make, stage="convert", space=space))


def _convert(file: Path, folder: Path) -> Generator[Event, None, None]:
    progress = Progress("convert", unit="tensors")
    require_memory(file.name, file.stat().st_size * _GROWTH, torch.device("cpu"))
    with in_words(file), _bars(progress):
        yield from in_thread(lambda: _write_copy(file, folder), progress)


def _write_copy(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32
    )
    # The weights are plain fp32 now; a model that still calls itself quantised is not saved.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    (folder / "source.json").write_text(json.dumps({"gguf": file.name}, indent=2))


@contextmanager
def _bars(progress: Progress) -> Iterator[None]:
    """Counts tensors instead of drawing the converter's bar, which takes no hook."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def bar(iterable: Any, *_: Any, **__: Any) -> Bar:
        return Bar(progress, iterable)

    drawn = getattr(reader, "tqdm", None)
    reader.tqdm = bar
    try:
        with counted_bars(Progress("", unit="")):  # loading and saving, which take no time
            yield
    finally:
        reader.tqdm = drawn
