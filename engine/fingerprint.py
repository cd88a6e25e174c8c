"""Which model it is: a hash that any change of configuration or weights moves. Torch-free.

Computed from the files, not from the loaded tensors: it is the same for every dtype, device
and sharding. Each tensor is sampled, so an edit of a few single numbers can go unseen; a
fine-tuned, merged, requantised or exchanged model does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .checkpoint import Checkpoint, StoredTensor

_SAMPLES = 16  # places looked at in a tensor, the first and the last bytes among them
_SAMPLE = 64  # bytes at each

# Keys that say how a file was written, or how to run it, not what the model computes.
_VOLATILE = {
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation",
    "_attn_implementation_internal",
    "architectures",
    "auto_map",
    "dtype",
    "gradient_checkpointing",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def fingerprint(checkpoint: Checkpoint) -> str:
    """Hexadecimal sha256 over configuration, names, dtypes and shapes of tensors, and samples."""
    digest = hashlib.sha256()
    digest.update(json.dumps(_lasting(checkpoint.config), sort_keys=True).encode())
    files: dict[Path, BinaryIO] = {}
    try:
        for tensor in checkpoint.tensors:
            digest.update(f"\n{tensor.name} {tensor.dtype} {tensor.shape}\n".encode())
            if tensor.file not in files:
                files[tensor.file] = tensor.file.open("rb")
            for chunk in _samples(files[tensor.file], tensor):
                digest.update(chunk)
    finally:
        for file in files.values():
            file.close()
    return digest.hexdigest()


def sampled_digest(path: Path) -> str:
    """The same idea for one file of any kind: its size, its first MiB and samples of the rest."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        for place in range(4096):
            file.seek(size * place // 4096)
            digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read())
    return digest.hexdigest()


def _lasting(config: Any) -> Any:
    """The configuration without volatile keys and without keys that are null, at any depth."""
    if not isinstance(config, dict):
        return config
    return {
        key: _lasting(value)
        for key, value in config.items()
        if key not in _VOLATILE and value is not None
    }


def _samples(file: BinaryIO, tensor: StoredTensor) -> Iterator[bytes]:
    length = tensor.end - tensor.start
    if length <= _SAMPLES * _SAMPLE:
        file.seek(tensor.start)
        yield file.read(length)
        return
    for index in range(_SAMPLES):
        file.seek(tensor.start + (length - _SAMPLE) * index // (_SAMPLES - 1))
        yield file.read(_SAMPLE)
