"""What is in a model folder: configuration and safetensors headers, no weights. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ModelUnavailable

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100 << 20  # bytes, as in the safetensors format
_REFETCH = "Fetch or copy the folder again."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes are: file[start:end]."""

    name: str
    dtype: str  # "F32", "BF16", ...
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def count(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class Checkpoint:
    """A complete model folder. tensors are in the order of their names."""

    folder: Path
    config: dict[str, Any]
    tensors: tuple[StoredTensor, ...]

    @property
    def parameters(self) -> int:
        """Stored elements; a tied head counts once when it is stored once."""
        return sum(tensor.count for tensor in self.tensors)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Checks that everything the configuration and the index name is there and whole.

    Raises ModelUnavailable naming the file that is missing or damaged.
    """
    config = _read_json(folder, "config.json")
    if (folder / INDEX).is_file():
        wanted = _index(folder)
    elif (folder / SINGLE).is_file():
        wanted = {}
    else:
        raise _no_weights(folder)
    files = sorted(set(wanted.values()) or {SINGLE})
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelUnavailable(
            f"{folder} lacks {missing[0]}{more} of {len(files)} files of weights.", _REFETCH
        )
    found = {tensor.name: tensor for name in files for tensor in _header(folder / name)}
    lost = sorted(set(wanted) - set(found))
    if lost:
        raise ModelUnavailable(
            f"{folder / wanted[lost[0]]} lacks the tensor {lost[0]} that {INDEX} names.", _REFETCH
        )
    return Checkpoint(folder, config, tuple(found[name] for name in sorted(found)))


def pickled(names: Iterable[str], place: object) -> ModelUnavailable | None:
    """The refusal of a model whose only weights are pickles; None when there are none."""
    bins = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if not bins:
        return None
    return ModelUnavailable(
        f"{place} has only pickled weights ({bins[0]}), which can run code and are not opened.",
        "Convert once where you trust them: AutoModelForCausalLM.from_pretrained(SOURCE)"
        ".save_pretrained(FOLDER), the same for AutoTokenizer, then --model FOLDER.",
    )


def _index(folder: Path) -> dict[str, str]:
    """Tensor -> file."""
    weight_map = _read_json(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnavailable(f"{folder / INDEX} has no weight_map.", _REFETCH)
    return {str(name): str(file) for name, file in weight_map.items()}


def _no_weights(folder: Path) -> ModelUnavailable:
    names = [path.name for path in folder.iterdir()]
    if any(name.startswith("model-") and name.endswith(".safetensors") for name in names):
        return ModelUnavailable(f"{folder} has shards but lacks {INDEX}.", _REFETCH)
    return pickled(names, folder) or ModelUnavailable(
        f"{folder} has no weights ({SINGLE}, or {INDEX} and its shards).", _REFETCH
    )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnavailable(f"{folder} has no {name}.", _REFETCH) from None
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ModelUnavailable(f"{path} is not JSON ({error}).", _REFETCH) from error
    if not isinstance(data, dict):
        raise ModelUnavailable(f"{path} is not a JSON object.", _REFETCH)
    return data


def _header(path: Path) -> list[StoredTensor]:
    """The tensors of one safetensors file: 8 bytes of header length, JSON, data."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise ValueError("its header is damaged")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            start = 8 + length
            tensors = [_tensor(path, start, *item) for item in header.items()]
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{path} is not a safetensors file: {error}.", _REFETCH) from error
    end = max((tensor.end for tensor in tensors), default=start)
    if end != size:
        raise ModelUnavailable(f"{path} is cut short: {size:,} of {end:,} bytes.", _REFETCH)
    return tensors


def _tensor(path: Path, base: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    start, end = entry["data_offsets"]
    return StoredTensor(name, entry["dtype"], tuple(entry["shape"]), path, base + start, base + end)
