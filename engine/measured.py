"""Measured tensors kept on disk: what can be measured again, and costs time to."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .events import Event

log = logging.getLogger(__name__)


def save(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Written aside and renamed: a killed process leaves no half file.

    What cannot be written is left out with a warning: a full disk costs the next start some
    seconds, not this edit.
    """
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), aside)
        os.replace(aside, file)
    except (OSError, SafetensorError) as error:
        log.warning("statistics are not kept: %s", error)
        with contextlib.suppress(OSError):
            aside.unlink()


def load(file: Path, *names: str) -> dict[str, Tensor] | None:
    """The tensors of a file that `save` wrote, on the CPU.

    names  that have to be in it
    None for a file that is not there, or was damaged since (with a warning).
    """
    if not file.exists():
        return None
    try:
        found: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        log.warning("statistics are measured again: %s: %s", file, error)
        return None
    return found if set(names) <= set(found) else None


def once(
    file: Path, name: str, work: Generator[Event, None, Tensor]
) -> Generator[Event, None, Tensor]:
    """What `work` measures, from the file where it is kept; `work` is not begun then."""
    found = load(file, name)
    if found is None:
        found = {name: (yield from work)}
        save(file, found)
    return found[name]
