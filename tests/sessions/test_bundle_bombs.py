"""Bundles that unpack to more than they should are refused before they do."""

from __future__ import annotations

import json
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions import Store, bundle
from tests.sessions.bundles import Members, Refused, manifest_of
from tests.sessions.conftest import Scribe

GB = 1 << 30


def _zeros(file: Path, good: Members, size: int, declared: int | None = None) -> None:
    """A bundle whose tensor file is really `size` zeros, deflated: about a thousandth of that.

    declared: the size that the zip and the manifest give instead.
    """
    piece = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = piece.compress(bytes(1 << 20)) + piece.flush(zlib.Z_FULL_FLUSH)
    packed = block * (size >> 20) + zlib.compressobj(wbits=-15).flush()
    name = next(name for name in good if name.startswith("tensors/"))
    rest = {each: data for each, data in good.items() if each != name}
    files = json.loads(manifest_of(rest))["files"]
    files[name] = {"size": declared or size, "sha256": name[8:72]}
    with zipfile.ZipFile(file, "w") as archive:
        for each, data in {**rest, "manifest.json": manifest_of(rest, files=files)}.items():
            archive.writestr(each, data)
        archive.writestr(name, packed)
        info = archive.getinfo(name)  # from here on: what the central directory will say
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, declared or size


def _frugal(read: Callable[[], object]) -> None:
    """Within 20 MB and a second of work."""
    start = time.process_time()
    tracemalloc.start()
    try:
        read()
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 1


def test_ten_gigabytes_of_zeros(good: Members, file: Path, refused: Refused) -> None:
    _zeros(file, good, 10 * GB)
    assert file.stat().st_size < 15 << 20
    _frugal(lambda: refused("unpacks to 10.7 GB; at most 8.59 GB is accepted."))


def test_less_than_the_limit_but_packed_as_only_a_bomb_is(
    good: Members, file: Path, refused: Refused
) -> None:
    _zeros(file, good, 5 * GB)
    _frugal(lambda: refused("packs 5.37 GB into", "as only a zip bomb does."))


def test_ten_gigabytes_of_zeros_that_say_they_are_few(
    good: Members, file: Path, refused: Refused
) -> None:
    _zeros(file, good, 10 * GB, declared=7)
    _frugal(lambda: refused("is damaged"))


def test_ten_gigabytes_of_zeros_that_are_really_there(
    good: Members, file: Path, refused: Refused
) -> None:
    """Stored, in a sparse file, so that nothing is packed suspiciously."""
    name = next(name for name in good if name.startswith("tensors/"))
    info = zipfile.ZipInfo(name)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", manifest_of(good))
        archive.writestr(info, b"")
        assert archive.fp is not None
        archive.fp.seek(10 * GB, 1)
        archive.start_dir = archive.fp.tell()
        info.file_size = info.compress_size = 10 * GB
    _frugal(lambda: refused("unpacks to 10.7 GB"))


def test_many_members_that_are_too_much_together(
    good: Members, file: Path, refused: Refused
) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", manifest_of(good))
        for i in range(3):
            info = zipfile.ZipInfo(f"tensors/{i:064x}.safetensors")
            archive.writestr(info, b"")
            info.file_size = info.compress_size = 4 * GB
    _frugal(lambda: refused("it unpacks to 12.9 GB"))


@pytest.mark.parametrize("name", ["manifest.json", "session.json", "events.jsonl"])
def test_texts_have_a_limit_of_their_own(
    good: Members, file: Path, refused: Refused, name: str
) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for each, data in good.items():
            archive.writestr(each, data)
        info = archive.getinfo(name)
        info.file_size = info.compress_size = 1 * GB
    _frugal(lambda: refused(f"{name!r} unpacks to 1.07 GB; at most 268 MB is accepted."))


def test_what_we_export_is_never_taken_for_a_bomb(scribe: Scribe, store: Store, file: Path) -> None:
    session = scribe.session().id
    store.add_message(session, "user", "a" * (12 << 20))
    bundle.write(store.recording(session), file)
    (message,) = bundle.read(file).messages.values()
    assert len(message.text) == 12 << 20
