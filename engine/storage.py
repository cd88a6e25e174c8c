"""Folders of the cache that are either complete or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import AssetUnavailable, LLMEditError, NoSpace
from .events import Event, Loading

_SPARE = 64 << 20  # bytes left free beyond what is written
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def build_once(
    folder: Path,
    make: Callable[[Path], Generator[Event, None, None]],
    *,
    stage: str,
    space: int = 0,
) -> Generator[Event, None, Path]:
    """`folder`, filled by `make(temporary folder)` unless it is there already.

    The temporary folder is renamed into place at the end, so a killed process leaves only a
    temporary one, which the next builder removes. A second process waits for the first and
    then finds its work done; its `Loading` events have total 0 meanwhile.

    space: bytes that `make` needs. Raises NoSpace; AssetUnavailable for a cache that cannot
    be written.
    """
    if folder.is_dir():
        return folder
    parent = folder.parent
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / f"{folder.name}.lock")
        yield from _acquire(lock, stage)
        try:
            if folder.is_dir():
                return folder
            for stale in parent.glob(f".{folder.name}.*"):  # nobody's: we hold the lock
                shutil.rmtree(stale, ignore_errors=True)
            require_space(parent, space)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
            try:
                yield from make(temporary)
                temporary.chmod(0o755)  # mkdtemp makes it private
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        finally:
            lock.release()
    return folder


def _acquire(lock: FileLock, stage: str) -> Generator[Event, None, None]:
    while True:
        try:
            lock.acquire(timeout=0.2)
            return
        except Timeout:
            yield Loading(stage=stage, done=0, total=0)


_CACHE = "Free some, or set LLM_EDIT_CACHE to a folder on another disk."


def require_space(folder: Path, needed: int, remedy: str = _CACHE) -> None:
    """Raises NoSpace when `folder` (or its nearest existing parent) has too little room."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed and free < needed + _SPARE:
        reason = f"{megabytes(needed)} needed, {megabytes(free)} free"
        raise no_room(folder, reason, remedy)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full or unwritable disk under `folder`, in words. Raises NoSpace, AssetUnavailable."""
    try:
        yield
    except LLMEditError:
        raise
    except Exception as error:
        if disk_full(error):
            raise no_room(folder, os.strerror(errno.ENOSPC)) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise AssetUnavailable(
                f"the cache {folder} cannot be written ({os.strerror(error.errno)}).",
                "Set LLM_EDIT_CACHE to a folder that can.",
            ) from error
        raise


def disk_full(error: BaseException) -> bool:
    """Whether the disk had no room; libraries written in Rust say so in their own errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "os error 28" in str(error) or "No space left" in str(error)


def no_room(folder: Path, reason: str, remedy: str = _CACHE) -> NoSpace:
    return NoSpace(f"no room under {folder}: {reason}.", remedy)


def megabytes(count: float) -> str:
    """Bytes for a person: 512 MB, 13.5 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder that others may be changing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_blocks * 512
            except OSError:  # gone, or renamed, in the meantime
                continue
    return total
