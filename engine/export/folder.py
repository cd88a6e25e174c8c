"""Output that is there whole or not at all. Torch-free."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import BadInput, LLMEditError, MissingResource
from ..storage import disk_full, no_room, require_space

_LOCK = "lock"
_FILES = "files"
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_ELSEWHERE = "Free some, or choose a folder on another disk: --out."


@contextmanager
def new_folder(out: Path, *, needed: int = 0) -> Iterator[Path]:
    """An empty folder beside `out` that takes its name when the block ends without an error.

    needed   bytes that will be written; looked for before anything is done
    A process that is killed leaves a hidden folder (`.NAME.…`), which the next export to the
    same place removes; two exports at once do not disturb each other.
    Raises BadInput (`out` is there and not empty), NoSpace, MissingResource (cannot be written).
    """
    out = out.expanduser().absolute()
    _require_free(out)
    require_space(out.parent, needed, _ELSEWHERE)
    with _in_words(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        hidden = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        lock = FileLock(hidden / _LOCK)
        try:
            lock.acquire()
            files = hidden / _FILES
            files.mkdir()
            yield files
            _require_free(out)  # it may have come up in the meantime
            if out.is_dir():
                out.rmdir()
            files.rename(out)
        finally:
            lock.release()
            shutil.rmtree(hidden, ignore_errors=True)


def write_new(out: Path, text: str) -> None:
    """A file of its own. Raises BadInput (it is there), NoSpace, MissingResource."""
    out = out.expanduser().absolute()
    _require_free(out, folder=False)
    with _in_words(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent, text=False)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(name, 0o644)  # mkstemp makes it private
            os.replace(name, out)
        finally:
            Path(name).unlink(missing_ok=True)


def _require_free(out: Path, *, folder: bool = True) -> None:
    """Raises BadInput for what would be overwritten; an empty folder may become a full one."""
    if folder and out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise BadInput(f"{out} is there already.", "Choose another --out, or remove it.")


def _remove_abandoned(out: Path) -> None:
    """Remove what killed exports to the same place left behind."""
    for hidden in out.parent.glob(f".{_escaped(out.name)}.*"):
        if not (hidden / _LOCK).is_file():
            continue  # not ours, or just being made
        lock = FileLock(hidden / _LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        lock.release()
        shutil.rmtree(hidden, ignore_errors=True)


def _escaped(name: str) -> str:
    """A name without meaning to glob."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextmanager
def _in_words(folder: Path) -> Iterator[None]:
    try:
        yield
    except LLMEditError:
        raise
    except Exception as error:
        if disk_full(error):
            raise no_room(folder, "no space left on the disk", _ELSEWHERE) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise MissingResource(
                f"{folder} cannot be written ({os.strerror(error.errno)}).",
                "Choose another folder: --out.",
            ) from error
        raise


def size_of(folder: Path) -> int:
    """Bytes in the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
