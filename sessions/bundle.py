"""Bundles: one session in one file, to keep or to carry to another machine.

A `.llmedit` file is a zip with exactly these members:

manifest.json               format, version, and size and sha256 of each other member
session.json                session, model, tree, messages, edits (see sessions.plainform)
events.jsonl                what jobs told, one a line
tensors/<sha256>.safetensors  the tensor file of each edit that is done

A bundle comes from somebody else. Nothing in it is run, its names are compared and never used
as paths, sizes are judged before a byte is read and counted again while reading, and nothing is
believed before its checksum fits. No pickle is read anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .codec import dumps, loads
from .errors import BadBundle, BundleTooNew
from .files import replacing
from .plainform import from_plain, to_plain, told_to_plain
from .recording import Recording

SUFFIX = ".llmedit"
FORMAT = "llm-edit session"
VERSION = 1

MAX_TOTAL = 8 << 30  # bytes of all members, unpacked
MAX_TEXT = 256 << 20  # bytes of manifest, session or events, unpacked
MAX_RATIO = 100  # unpacked to packed, for members above _SMALL; ours stay below it
MAX_DEPTH = 100  # of JSON
_SMALL = 10 << 20
_CHUNK = 1 << 20

_MANIFEST, _SESSION, _EVENTS = "manifest.json", "session.json", "events.jsonl"
_TENSORS = re.compile(r"tensors/([0-9a-f]{64})\.safetensors")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member: the same session gives the same bytes

_AGAIN = "Get the file again, or export the session again."
_UNFIT = "is not a bundle that can be read:"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError,
           OverflowError, KeyError, IndexError)  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A member as the manifest lists it: bytes, and their sha256 (hex)."""

    size: int
    sha256: str


# Writing


def file_name(title: str, short: str) -> str:
    """What to call the bundle of a session: a name that any file system takes."""
    kept = re.sub(r"[^\w-]+", "-", title).strip("-")[:60]
    return (kept or short) + SUFFIX


def write(recording: Recording, path: Path) -> None:
    """Write the bundle at `path`, whole or not at all; a file that is there is replaced.

    Raises CorruptTensors or BadBundle (a tensor file of the recording, or too much of it),
    StoreFull, StoreReadOnly.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        _write(recording, archive)


def _write(recording: Recording, archive: zipfile.ZipFile) -> None:
    listed: dict[str, Listed] = {}
    session = dumps(to_plain(recording)).encode()
    events = "".join(f"{dumps(told_to_plain(told))}\n" for told in recording.events).encode()
    for name, data in ((_SESSION, session), (_EVENTS, events)):
        if len(data) > MAX_TEXT:
            raise BadBundle(f"the session is too long for a bundle: {name} has {_size(len(data))}.")
        listed[name] = _add(archive, name, iter([data]), _packing(data))
    for edit in recording.edits:
        if edit.tensors is not None and (name := _tensor_name(edit.tensors)) not in listed:
            # Numbers hardly get smaller, and stored members cannot be suspected of being bombs.
            listed[name] = _add(archive, name, recording.chunks(edit.tensors), _STORED)
            if sum(member.size for member in listed.values()) > MAX_TOTAL:
                raise BadBundle(f"the session has more than {_size(MAX_TOTAL)} of tensors.")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: vars(member) for name, member in listed.items()},
    }
    _add(archive, _MANIFEST, iter([dumps(manifest).encode()]), _DEFLATED)


def _packing(data: bytes) -> int:
    """Stored where packing would work suspiciously well (the same text a million times)."""
    if len(data) <= _SMALL or len(zlib.compress(data)) * MAX_RATIO > len(data) * 2:
        return _DEFLATED
    return _STORED


def _add(archive: zipfile.ZipFile, name: str, chunks: Iterator[bytes], packing: int) -> Listed:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = packing
    info.external_attr = (stat.S_IFREG | 0o600) << 16
    digest, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=True) as member:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            member.write(chunk)
    return Listed(size, digest.hexdigest())


def _tensor_name(digest: str) -> str:
    return f"tensors/{digest}.safetensors"


# Reading


def read(path: Path) -> Recording:
    """The session in the bundle at `path`, without importing it.

    Texts are read and checked now, tensor files when they are asked for. Raises BadBundle,
    BundleTooNew; nothing is written anywhere.
    """
    with _opened(path) as archive:
        members = _members(archive)
        listed = _manifest(archive, members)
        tree = _json(_text(archive, _SESSION, listed))
        lines = _text(archive, _EVENTS, listed).split("\n")  # texts may hold other line ends
        log = [_json(line, json.loads) for line in lines if line]

        def chunks(digest: str) -> Iterator[bytes]:
            return _tensor_chunks(path, digest)

        found = from_plain(tree, log, chunks)
        _matches(found, listed)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`; whatever is wrong with it leaves as a BadBundle that names it."""
    try:
        with path.open("rb") as file:
            if not _may_be_zip(file):
                raise BadBundle("is no bundle of llm-edit: it is not a zip file.")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except BadBundle as error:
        told = error.message.startswith("is ")
        said = error.message if told else f"{_UNFIT} {error.message}"
        raise type(error)(f"{path} {said}", error.remedy) from error
    except RecursionError as error:
        raise BadBundle(f"{path} {_UNFIT} it is nested too deep.") from error
    except _DAMAGE as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise BadBundle(f"{path} is damaged or cut short ({reason}).", _AGAIN) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadBundle(f"{path} cannot be read ({reason}).") from error


def _may_be_zip(file: IO[bytes]) -> bool:
    start = file.read(4)
    file.seek(0)
    return start in (b"PK\3\4", b"PK\5\6")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What is inside, judged by names, kinds and sizes before anything is read."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        shown = repr(info.filename[:80])
        if _leaves(info.filename):
            raise BadBundle(f"its member {shown} would be written outside of its folder.")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BadBundle(f"its member {shown} is a link or a folder, not a file.")
        if not _ours(info.filename):
            raise BadBundle(f"its member {shown} does not belong in a bundle.")
        if info.filename in members:
            raise BadBundle(f"its member {shown} is there twice.")
        if info.flag_bits & 1 or info.compress_type not in (_STORED, _DEFLATED):
            raise BadBundle(f"its member {shown} is encrypted, or packed in an unknown way.")
        _sized(info)
        members[info.filename] = info
    total = sum(info.file_size for info in members.values())
    if total > MAX_TOTAL:
        raise BadBundle(f"it unpacks to {_size(total)}; at most {_size(MAX_TOTAL)} is accepted.")
    return members


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]


def _ours(name: str) -> bool:
    return name in (_MANIFEST, _SESSION, _EVENTS) or _TENSORS.fullmatch(name) is not None


def _sized(info: zipfile.ZipInfo) -> None:
    limit = MAX_TOTAL if _TENSORS.fullmatch(info.filename) else MAX_TEXT
    if info.file_size > limit:
        raise BadBundle(
            f"its member {info.filename!r} unpacks to {_size(info.file_size)}; "
            f"at most {_size(limit)} is accepted."
        )
    if info.file_size > _SMALL and info.file_size > MAX_RATIO * info.compress_size:
        raise BadBundle(
            f"its member {info.filename!r} packs {_size(info.file_size)} into "
            f"{_size(info.compress_size)}, as only a zip bomb does."
        )


def _manifest(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> dict[str, Listed]:
    """The members that the manifest lists, which are those that are there."""
    if _MANIFEST not in members:
        raise BadBundle("is no bundle of llm-edit: it has no manifest.json.")
    found = loads(b"".join(_chunks(archive, _MANIFEST)).decode())
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BadBundle("is no bundle of llm-edit: its manifest.json is of something else.")
    version = found.get("version")
    if type(version) is int and version > VERSION:
        raise BundleTooNew(
            f"is a bundle of version {version}; this llm-edit reads version {VERSION}.",
            "Update llm-edit.",
        )
    if version != VERSION:
        raise BadBundle(f"its version is {version!r}, which is none.")
    _only(found, {"format", "version", "files"}, "its manifest")
    files = found["files"]
    if not isinstance(files, dict):
        raise BadBundle("its manifest lists no files.")
    listed = {name: _listed(name, value) for name, value in files.items()}
    for name in [_SESSION, _EVENTS, *listed]:
        if name not in members or name == _MANIFEST:
            raise BadBundle(f"its member {name[:80]!r} is missing.", _AGAIN)
    for name, info in members.items():
        if name != _MANIFEST and name not in listed:
            raise BadBundle(f"its member {name!r} is not in its manifest.")
        if name != _MANIFEST and listed[name].size != info.file_size:
            raise BadBundle(f"its member {name!r} has not the size that its manifest says.", _AGAIN)
    return listed


def _listed(name: str, value: Any) -> Listed:
    place = f"the manifest's entry {name[:80]!r}"
    if not isinstance(value, dict):
        raise BadBundle(f"{place} is not an object.")
    _only(value, {"size", "sha256"}, place)
    if type(value["size"]) is not int or not isinstance(value["sha256"], str):
        raise BadBundle(f"{place} has no size and sha256.")
    tensors = _TENSORS.fullmatch(name)
    if tensors is not None and tensors[1] != value["sha256"]:
        raise BadBundle(f"{place} has another checksum than its name.")
    return Listed(value["size"], value["sha256"])


def _only(found: Collection[str], wanted: set[str], place: str) -> None:
    if unknown := sorted(set(found) - wanted):
        raise BadBundle(f"{place} has the unknown field {unknown[0][:80]!r}.")
    if missing := sorted(wanted - set(found)):
        raise BadBundle(f"{place} has no field {missing[0]!r}.")


def _matches(found: Recording, listed: dict[str, Listed]) -> None:
    """Every edit that is done has its file, and no file is nobody's."""
    named = {_tensor_name(edit.tensors) for edit in found.edits if edit.tensors is not None}
    there = listed.keys() - {_SESSION, _EVENTS}
    if missing := sorted(named - there):
        raise BadBundle(f"its member {missing[0]!r} is missing.", _AGAIN)
    if extra := sorted(there - named):
        raise BadBundle(f"its member {extra[0]!r} belongs to no edit.")


def _json(text: str, read: Callable[[str], Any] = loads) -> Any:
    """Raises BadBundle for what is nested deeper than anything of ours."""
    found = read(text)
    level, depth = [found] if isinstance(found, (dict, list)) else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadBundle("it is nested too deep.")
        below = (v.values() if isinstance(v, dict) else v for v in level)
        level = [x for inner in below for x in inner if isinstance(x, (dict, list))]
    return found


def _text(archive: zipfile.ZipFile, name: str, listed: dict[str, Listed]) -> str:
    return b"".join(_verified(archive, name, listed[name])).decode()


def _verified(archive: zipfile.ZipFile, name: str, listed: Listed) -> Iterator[bytes]:
    """A member's bytes; the end is reached only if their number and checksum are right."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(archive, name):
        digest.update(chunk)
        size += len(chunk)
        if size > listed.size:
            break
        yield chunk
    if size != listed.size or digest.hexdigest() != listed.sha256:
        raise BadBundle(f"the checksum of its member {name!r} is wrong.", _AGAIN)


def _chunks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with archive.open(name) as member:
        while chunk := member.read(_CHUNK):
            yield chunk


def _tensor_chunks(path: Path, digest: str) -> Iterator[bytes]:
    """A tensor file of the bundle, which is opened anew: it may have been changed meanwhile."""
    name = _tensor_name(digest)
    with _opened(path) as archive:
        info = archive.getinfo(name)
        _sized(info)
        yield from _verified(archive, name, Listed(info.file_size, digest))


def _size(count: int) -> str:
    """Bytes for a person."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.3g} {unit}"
    return f"{count} bytes"
