"""Tensor files, named by the sha256 of what they hold. The bytes are opaque here."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .errors import CorruptTensors, from_os
from .ids import new_ulid

SUFFIX = ".safetensors"
_CHUNK = 1 << 20
_REMEDY = "Restore the file from a copy, or drop this edit and make it again."


class Blobs:
    """Files in `folder`, written whole or not at all, never changed afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        return self.folder / f"{digest}{SUFFIX}"

    def has(self, digest: str, size: int) -> bool:
        """True when the file is there with this many bytes."""
        try:
            return self.path(digest).stat().st_size == size
        except OSError:
            return False

    def write(self, data: bytes) -> str:
        """Store `data` durably; returns its sha256 (hex).

        On return the file and its name in the folder are on the disk.
        Raises StoreFull, StoreReadOnly; then nothing is left behind.
        """
        digest = hashlib.sha256(data).hexdigest()
        self.copy(digest, [data])
        return digest

    def copy(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Store what `chunks` give, whose sha256 is `digest`; returns its size in bytes.

        Raises what `chunks` raise, StoreFull, StoreReadOnly; then nothing is left behind.
        """
        final = self.path(digest)
        temporary = self.folder / f".{new_ulid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            size = _write_synced(temporary, chunks)
            os.replace(temporary, final)
            _sync_folder(self.folder)
        except OSError as error:
            raise from_os(error, final) from error
        finally:
            with suppress(OSError):  # gone after the rename; never hide the first error
                temporary.unlink()
        return size

    def discard(self, digests: Collection[str]) -> int:
        """Remove these files; returns how many there were. Raises StoreReadOnly."""
        found = [path for path in map(self.path, digests) if path.exists()]
        for path in found:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise from_os(error, path) from error
        return len(found)

    def read(self, digest: str) -> bytes:
        """The bytes whose sha256 is `digest`. Raises CorruptTensors."""
        return b"".join(self.chunks(digest))

    def chunks(self, digest: str) -> Iterator[bytes]:
        """The same, piece by piece; the end is reached only if the checksum is right."""
        path, found = self.path(digest), hashlib.sha256()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise CorruptTensors(f"the tensor file {path} is missing.", _REMEDY) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise CorruptTensors(f"{path} cannot be read ({reason}).", _REMEDY) from error
        if found.hexdigest() != digest:
            raise CorruptTensors(f"the tensor file {path} is not what was stored.", _REMEDY)

    def orphans(self, known: Collection[str], min_age: float) -> list[Path]:
        """Files that no edit names, and abandoned temporary files, older than `min_age` s."""
        if not self.folder.is_dir():
            return []
        wanted = {f"{digest}{SUFFIX}" for digest in known}
        found = [p for p in self.folder.iterdir() if p.name not in wanted and _ours(p)]
        return sorted(p for p in found if time.time() - p.stat().st_mtime >= min_age)


def _ours(path: Path) -> bool:
    """True for what `write` makes; anything else in the folder is left alone."""
    digest = path.name.removesuffix(SUFFIX)
    named = len(digest) == 64 and path.suffix == SUFFIX
    return named or (path.name.startswith(".") and path.suffix == ".tmp")


def _write_synced(path: Path, chunks: Iterable[bytes]) -> int:
    """Returns the number of bytes."""
    with path.open("xb") as file:
        size = sum(file.write(chunk) for chunk in chunks)
        file.flush()
        os.fsync(file.fileno())
    return size


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows has no such call, and needs none on NTFS."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
