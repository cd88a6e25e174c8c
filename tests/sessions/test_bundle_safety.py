"""Bundles come from strangers: each fault is one sentence that names the file, and changes nothing.

The file is named, exit code 2 follows, and what the store holds stays as it is: no row, no tensor
file, nothing outside.
"""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import stat
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions import BadBundle, BundleTooNew, Store, bundle
from tests.sessions.conftest import Scribe
from tests.sessions.test_importing import contents, of

Members = dict[str, bytes]
GB = 1 << 30


@pytest.fixture
def good(scribe: Scribe, tmp_path: Path) -> Members:
    """The members of a small bundle."""
    session = scribe.session("s").id
    question = scribe.store.add_message(session, "user", "capital?")
    edit = scribe.edit(session, "edit-one", question.id)
    scribe.store.add_mark(session, "undo", "edit-one", ledger_hash="")
    event = {"kind": "Note", "seq": 0, "t": 0.0}
    scribe.store.add_events(session, edit.node, "1", [event])
    bundle.write(scribe.store.recording(session), tmp_path / "good.llmedit")
    with zipfile.ZipFile(tmp_path / "good.llmedit") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bad.llmedit"


@pytest.fixture
def refused(store: Store, file: Path) -> Callable[..., BadBundle]:
    """`refused(part, ...)`: the file is refused with these words by reading or importing."""

    def check(*parts: str, kind: type[BadBundle] = BadBundle) -> BadBundle:
        before = contents(store.home)
        outside = sorted(p for p in file.parent.rglob("*") if store.home not in p.parents)
        with pytest.raises(BadBundle) as caught:
            store.add_recording(bundle.read(file), copy=True, of=of)
        error = caught.value
        assert type(error) is kind
        assert error.exit_code == 2
        assert error.message.startswith(f"{file} ")
        assert error.message.endswith(".")
        assert "\n" not in str(error)
        for part in parts:
            assert part in error.message
        assert contents(store.home) == before
        found = sorted(p for p in file.parent.rglob("*") if store.home not in p.parents)
        assert found == outside
        return error

    return check


Refused = Callable[..., BadBundle]


def manifest_of(members: Members, **changes: Any) -> bytes:
    """What fits the members, with changes."""
    files = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
        if name != "manifest.json"
    }
    found = {"format": bundle.FORMAT, "version": 1, "files": files}
    return json.dumps(found | changes).encode()


def pack(file: Path, members: Members, packing: int = zipfile.ZIP_DEFLATED, **changes: Any) -> None:
    """A bundle of these members with a manifest that fits them."""
    whole = {**members, "manifest.json": manifest_of(members, **changes)}
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in whole.items():
            archive.writestr(name, data)


def session_with(good: Members, change: Callable[[Any], object]) -> Members:
    tree = json.loads(good["session.json"])
    change(tree)
    return {**good, "session.json": json.dumps(tree).encode()}


def test_the_helpers_make_a_bundle_that_is_accepted(
    good: Members, file: Path, store: Store
) -> None:
    """Otherwise every test below could pass for another reason."""
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


# Sizes


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


# JSON


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("session.json", b"{", "is damaged"),
        ("session.json", b"\xff\xfe", "is damaged"),
        ("session.json", b"[]", "the session: 'it' is not an object."),
        ("session.json", b'{"a": 1}', "the session has the unknown field 'a'."),
        ("session.json", b"[" * 100_000, "nested too deep"),
        ("session.json", b'{"session": ' + b"9" * 5000 + b"}", "is damaged"),
        ("events.jsonl", b"{}\n", "event 0 has no field 'node'."),
        ("events.jsonl", b"{", "is damaged"),
        ("events.jsonl", b'{"node": null, "job": "1", "event": {}}', "event 0 has no 'kind'."),
        ("events.jsonl", b'{"node": null, "job": "1", "event": {"kind": "A", "seq": 1, "t": NaN}}',
         "event 0: 't' is not a finite number."),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_json_that_is_not_ours(
    good: Members, file: Path, refused: Refused, name: str, text: bytes, part: str
) -> None:
    pack(file, {**good, name: text})
    refused(part)


def _set(*way: Any, to: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for step in way[:-1]:
            tree = tree[step]
        tree[way[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_set("novelty", to=1), "the session has the unknown field 'novelty'."),
        (_set("edits", 0, "novelty", to=1), "edit 0 has the unknown field 'novelty'."),
        (lambda t: t["session"].pop("title"), "the session has no field 'title'."),
        (_set("session", "title", to=3), "the session: 'title' is not a text."),
        (_set("session", "id", to="a/b"), "'a/b' cannot be a session's id."),
        (_set("session", "tip", to="gone"), "the session stands at gone, which is not there."),
        (_set("session", "model", "fingerprint", to=None), "'fingerprint' is not a text."),
        (_set("nodes", 1, "parent", to="gone"), "hangs under gone, which is not before it."),
        (lambda t: t["nodes"][0].update(parent=t["nodes"][1]["id"]), "which is not before it."),
        (lambda t: t["nodes"][1].update(id=t["nodes"][0]["id"]), "edit 0 is about node"),
        (_set("nodes", 0, "kind", to="novelty"), "is of unknown kind 'novelty'."),
        (_set("nodes", 2, "target", to="gone"), "is about edit gone, not there."),
        (_set("nodes", 0, "target", to="edit-one"), "is about an edit and should not be."),
        (_set("nodes", 0, "detail", to={"a": 1}), "has unknown fields."),
        (_set("messages", to=[]), "nodes and messages do not match."),
        (lambda t: t["messages"].append(t["messages"][0]), "two messages share one node."),
        (_set("messages", 0, "role", to="tool"), "has the unknown role 'tool'."),
        (_set("messages", 0, "tokens", to=1 << 70), "'tokens' is not a whole number."),
        (_set("messages", 0, "tokens", to=True), "'tokens' is not a whole number."),
        (_set("messages", 0, "seconds", to={"float": "nan"}), "'seconds' is not a finite number."),
        (_set("edits", to=[]), "is about edit edit-one, not there."),
        (_set("edits", 0, "state", to="running"), "is in the unknown state 'running'."),
        (_set("edits", 0, "tensors", to=None), "edit edit-one is done: its tensors."),
        (_set("edits", 0, "tensors", to="../x"), "edit edit-one names no tensor file."),
        (_set("edits", 0, "success", to=1), "'success' is not true or false or null."),
        (_set("edits", 0, "request", to={"requests": [1]}), "are not a list of objects."),
        (_set("edits", 0, "patches", 0, "rank", to=1.5), "'rank' is not a whole number."),
        (lambda t: t["edits"][0]["metrics"].append(t["edits"][0]["metrics"][0]), "a metric twice"),
        (_set("edits", 0, "seconds", to={"total": "1"}), "'total' is not a number."),
    ],
)  # fmt: skip
def test_every_field_is_looked_at(
    good: Members, file: Path, refused: Refused, change: Callable[[Any], object], part: str
) -> None:
    pack(file, session_with(good, change))
    refused(part)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"novelty": 1}, "its manifest has the unknown field 'novelty'."),
        ({"version": "1"}, "its version is '1', which is none."),
        ({"version": 0}, "its version is 0, which is none."),
        ({"files": []}, "its manifest lists no files."),
        ({"files": {"session.json": 1}}, "the manifest's entry 'session.json' is not an object."),
        ({"files": {"session.json": {"size": 1}}}, "has no field 'sha256'."),
    ],
)
def test_the_manifest_is_looked_at(
    good: Members, file: Path, refused: Refused, changes: dict[str, Any], part: str
) -> None:
    pack(file, good, **changes)
    refused(part)


def test_carried_and_forgotten_things_must_be_there(
    good: Members, file: Path, refused: Refused
) -> None:
    for kind, detail, part in (
        ("carry", {"active": ["gone"], "undone": []}, "carries 'gone', which is not there."),
        ("carry", {"active": [[]], "undone": []}, "carries [], which is not there."),
        ("carry", {"novelty": []}, "has the unknown field 'novelty'."),
        ("forget", {"message": "gone"}, "is about message 'gone', which is not there."),
        ("remember", {}, "is about message None, which is not there."),
    ):
        node = {"kind": kind, "detail": detail, "target": None}
        pack(file, session_with(good, lambda tree, node=node: tree["nodes"][2].update(node)))
        refused(part)


@pytest.mark.parametrize("depth", [101, 300, 900])
def test_nested_not_too_deep_for_json_but_for_us(
    good: Members, file: Path, refused: Refused, depth: int
) -> None:
    deep = json.loads('{"a":' * depth + "1" + "}" * depth)
    pack(file, session_with(good, _set("edits", 0, "body", to=deep)))
    refused("it is nested too deep.")


def test_lone_surrogates_do_not_stop_an_import(good: Members, file: Path, store: Store) -> None:
    pack(file, session_with(good, _set("messages", 0, "text", to="caf\udce9")))
    session, _ = store.add_recording(bundle.read(file), copy=True, of=of)
    assert [m.text for m in store.messages(session.id)] == ["caf?"]


def test_a_local_header_that_tells_another_name(
    good: Members, file: Path, refused: Refused
) -> None:
    pack(file, good, zipfile.ZIP_STORED)
    data = file.read_bytes()
    assert data[:4] == struct.pack("<I", 0x04034B50)
    file.write_bytes(data.replace(b"session.json", b"../evil.json", 1))
    refused("is damaged")
