"""Bundles come from strangers: each fault is one sentence that names the file, and changes nothing.

The file is named, exit code 2 follows, and what the store holds stays as it is: no row, no tensor
file, nothing outside.
"""

from __future__ import annotations

import ast
import hashlib
import pickle
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sessions import BadBundle, BundleTooNew, Store, bundle
from tests.sessions.bundles import Members, Refused, contents, of, pack, session_with


def test_the_helpers_make_a_bundle_that_is_accepted(
    good: Members, file: Path, store: Store
) -> None:
    """Otherwise every test that one is refused could pass for another reason."""
    pack(file, session_with(good, lambda tree: None))
    assert store.add_recording(bundle.read(file), copy=True, of=of)[1]


# What is no bundle


@pytest.mark.parametrize("junk", [b"", b"x", b"not a zip" * 500, b"PK", b"\0" * 5000])
def test_a_file_that_is_no_zip(file: Path, refused: Refused, junk: bytes) -> None:
    file.write_bytes(junk)
    refused("is no bundle of llm-edit: it is not a zip file.")


def test_a_pickle_is_not_read(file: Path, refused: Refused) -> None:
    class Boom:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("a pickle was run",))

    file.write_bytes(pickle.dumps(Boom()))
    refused("it is not a zip file")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Boom()))
    refused("its member 'archive/data.pkl' does not belong in a bundle")


def test_no_module_of_ours_imports_what_runs_code_from_files() -> None:
    for path in Path(bundle.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            names.append(getattr(node, "module", None) or "")
            assert not {"pickle", "marshal", "shelve", "dill", "yaml", "runpy"} & set(names), path


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bundle(good: Members, file: Path, refused: Refused, part: float) -> None:
    pack(file, good)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    error = refused("is damaged or cut short")
    assert "Get the file again" in error.remedy


def test_a_folder_in_its_place(file: Path, refused: Refused) -> None:
    file.mkdir()
    refused("cannot be read (Is a directory)")


def test_another_programs_zip(file: Path, refused: Refused) -> None:
    with zipfile.ZipFile(file, "w"):
        pass
    refused("it has no manifest.json")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", '{"format": "something else"}')
    refused("its manifest.json is of something else")


def test_a_later_version(good: Members, file: Path, refused: Refused) -> None:
    pack(file, good, version=2, novelty=True)
    error = refused("is a bundle of version 2; this llm-edit reads version 1.", kind=BundleTooNew)
    assert error.remedy == "Update llm-edit."


# Checksums


@pytest.mark.parametrize("which", ["session.json", "events.jsonl", "tensors/"])
def test_a_wrong_checksum(good: Members, file: Path, refused: Refused, which: str) -> None:
    """The zip itself is sound: only the manifest can tell."""
    name = next(name for name in good if name.startswith(which))
    spoiled = bytes([good[name][0] ^ 1]) + good[name][1:]
    with zipfile.ZipFile(file, "w") as archive:
        for each, data in {**good, name: spoiled}.items():
            archive.writestr(each, data)
    error = refused(f"the checksum of its member {name!r} is wrong.")
    assert error.remedy == "Get the file again, or export the session again."


def test_a_flipped_bit_anywhere(good: Members, file: Path, store: Store, tmp_path: Path) -> None:
    """Either it is refused, or it makes no difference (the zip has bytes that nobody reads)."""
    pack(file, good, zipfile.ZIP_STORED)
    data, whole = bytearray(file.read_bytes()), bundle.read(file)
    before, messages = contents(store.home), []
    for place in range(0, len(data), 7):
        data[place] ^= 4
        file.write_bytes(data)
        try:
            found = bundle.read(file)
            assert found.tensors(found.edits[0]) == whole.tensors(whole.edits[0])
            assert found.nodes == whole.nodes
        except BadBundle as error:
            messages.append(error.message)
        data[place] ^= 4
    assert len(messages) > 50
    assert all(message.startswith(f"{file} ") for message in messages)
    assert contents(store.home) == before


# Names


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "tensors/../../evil", "..\\evil", "C:\\evil", "C:evil", "\\\\h\\evil"],
)
def test_a_member_that_would_be_written_elsewhere(
    good: Members, file: Path, refused: Refused, name: str
) -> None:
    pack(file, {**good, name: b"evil"})
    refused("would be written outside of its folder", repr(name))


def test_a_symbolic_link(good: Members, file: Path, refused: Refused) -> None:
    pack(file, good)
    info = zipfile.ZipInfo(f"tensors/{'0' * 64}.safetensors")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    refused("is a link or a folder, not a file")


@pytest.mark.parametrize("name", ["readme.txt", "tensors/", "tensors/x.safetensors", "a/b.json"])
def test_a_member_that_is_not_ours(good: Members, file: Path, refused: Refused, name: str) -> None:
    pack(file, {**good, name: b""})
    refused("its member", repr(name))


def test_a_member_that_is_there_twice(good: Members, file: Path, refused: Refused) -> None:
    pack(file, good)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("session.json", "{}")
    refused("its member 'session.json' is there twice")


@pytest.mark.parametrize("name", ["session.json", "events.jsonl", "tensors/"])
def test_a_member_that_is_missing(good: Members, file: Path, refused: Refused, name: str) -> None:
    rest = {each: data for each, data in good.items() if not each.startswith(name)}
    pack(file, rest)
    refused("is missing.", name)


def test_a_tensor_file_of_no_edit(good: Members, file: Path, refused: Refused) -> None:
    name = f"tensors/{hashlib.sha256(b'extra').hexdigest()}.safetensors"
    pack(file, {**good, name: b"extra"})
    refused("belongs to no edit")


def test_a_member_that_the_manifest_does_not_list(
    good: Members, file: Path, refused: Refused
) -> None:
    members = {**good, f"tensors/{'0' * 64}.safetensors": b"x"}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    refused("is not in its manifest")


def test_members_that_are_packed_in_ways_we_do_not_use(
    good: Members, file: Path, refused: Refused
) -> None:
    for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        pack(file, good, packing)
        refused("packed in an unknown way")


def test_a_local_header_that_tells_another_name(
    good: Members, file: Path, refused: Refused
) -> None:
    pack(file, good, zipfile.ZIP_STORED)
    data = file.read_bytes()
    assert data[:4] == struct.pack("<I", 0x04034B50)
    file.write_bytes(data.replace(b"session.json", b"../evil.json", 1))
    refused("is damaged")
