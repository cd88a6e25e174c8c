"""`sessions export` and `import`: a session goes to another home and is the same there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Run, one_line, process
from .small import QUESTION

pytestmark = pytest.mark.usefixtures("own_folders")


def home() -> Path:
    return Path(os.environ["LLM_EDIT_HOME"])


def stored() -> list[str]:
    """All rows, and the names and bytes of tensor files."""
    with closing(sqlite3.connect(home() / "sessions.db")) as db:
        rows = list(db.iterdump())
    return rows + [f"{p.name} {p.read_bytes()!r}" for p in sorted(home().glob("tensors/*"))]


@pytest.fixture
def edited(run: Run, model: Path, small: tuple[object, ...]) -> str:
    """A session with an edit, called capitals."""
    run("edit", QUESTION, "--subject", "Australia", "--target", "Melbourne", "--no-probes",
        "--model", model, *small)  # fmt: skip
    (row,) = run("sessions", "list", "--json").json["sessions"]
    run("sessions", "rename", row["id"], "capitals")
    return str(row["id"])


@pytest.fixture
def bundle(run: Run, edited: str, tmp_path: Path) -> Path:
    out = tmp_path / "capitals.llmedit"
    assert run("sessions", "export", "capitals", "--out", out).code == 0
    return out


def test_a_bundle_goes_to_another_home_and_acts_there(
    run: Run, edited: str, bundle: Path, tmp_path: Path
) -> None:
    wanted = run("ask", QUESTION, "--session", edited, "--json").json
    bundle.unlink()
    told = run("sessions", "export", "capitals", "--out", bundle, "--json").json
    assert (told["format"], told["bytes"]) == ("bundle", bundle.stat().st_size)
    there = ("--home", tmp_path / "there")
    imported = run("sessions", "import", bundle, "--json", *there).json
    assert imported == {"id": edited, "title": "capitals", "new": True}
    found = run("ask", QUESTION, "--session", "capitals", "--json", *there).json
    assert (found["answer"], found["edits"]) == (wanted["answer"], wanted["edits"])
    assert run("undo", "--session", "capitals", *there).code == 0
    again = run("sessions", "import", bundle, *there)
    assert again.code == 0
    assert "is here already; nothing was changed" in again.out
    copied = run("sessions", "import", bundle, "--copy", "--title", "second", "--json", *there).json
    assert copied["id"] != edited
    ran = run("ask", QUESTION, "--session", "second", "--json", *there)
    assert ran.json["answer"] == wanted["answer"], "the copy has its edit still, under a new id"
    assert ran.json["edits"] != wanted["edits"]


def test_texts_go_to_stdout_and_to_files(run: Run, edited: str, tmp_path: Path) -> None:
    text = run("sessions", "export", edited, "--format", "md").out
    assert text.startswith("# capitals\n")
    file = tmp_path / "capitals.md"
    assert run("sessions", "export", edited, "--out", file).code == 0
    assert file.read_bytes().decode() == text
    whole = run("sessions", "export", edited, "--format", "json").json
    assert whole["session"]["id"] == edited
    assert whole["edits"][0]["request"]["target_new"] == "Melbourne"
    assert [e["event"]["kind"] for e in whole["events"]][-1] == "JobEnded"
    assert run("sessions", "export", edited, "--out", tmp_path / "a.json").code == 0
    assert json.loads((tmp_path / "a.json").read_text()) == whole


def test_a_bundle_is_named_after_its_session(
    run: Run, edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("sessions", "rename", edited, "../../a/b: c?")
    assert "a-b-c.llmedit" in run("sessions", "export", edited).out
    assert zipfile.is_zipfile(tmp_path / "a-b-c.llmedit")


def test_what_is_there_is_replaced_only_by_force(
    run: Run, edited: str, bundle: Path, tmp_path: Path
) -> None:
    bundle.write_text("mine")
    for arguments, said in (
        (("--out", bundle), "is there already; --force replaces it"),
        (("--out", tmp_path), "is a folder"),
        (("--out", "-"), "a bundle is written to a file"),
        (("--format", "md", "--json"), "--json tells of a file"),
        (("--out", tmp_path / "a.txt"), "no format has the ending '.txt'. Take .llmedit, .md or"),
    ):
        ran = run("sessions", "export", edited, *arguments)
        assert ran.code == 2
        assert said in one_line(ran.err)
    assert bundle.read_text() == "mine"
    named = run("sessions", "export", edited, "--out", tmp_path / "a.txt", "--format", "md")
    assert (named.code, (tmp_path / "a.txt").read_text()[0]) == (0, "#")
    assert run("sessions", "export", edited, "--out", bundle, "--force").code == 0
    assert zipfile.is_zipfile(bundle)
    ran = run("sessions", "export", edited, "--out", bundle / "deeper" / "a.llmedit")
    assert ran.code == 3
    assert "cannot be written" in one_line(ran.err)


# -- what is refused: one sentence, and nothing lost ----------------------------------------------


def _wrong_checksum(bundle: Path) -> None:
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        (name,) = [n for n in archive.namelist() if n.startswith("tensors/")]
        tensors = archive.read(name)
    at = data.index(tensors) + len(tensors) - 1
    bundle.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def _outside(bundle: Path) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../../outside", "x")


def _zeros(bundle: Path) -> None:
    """Zeros that pack a thousandfold; the directory promises four gigabytes of them."""
    with zipfile.ZipFile(bundle, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        info = zipfile.ZipInfo(f"tensors/{'0' * 64}.safetensors")
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(bytes(16 << 20))
    data = bytearray(bundle.read_bytes())  # the directory says what it unpacks to
    with zipfile.ZipFile(bundle) as archive:
        entry = archive.getinfo(info.filename)
    at = data.rindex(b"PK\x01\x02")
    assert int.from_bytes(data[at + 24 : at + 28], "little") == entry.file_size
    data[at + 24 : at + 28] = (4_200_000_000).to_bytes(4, "little")
    bundle.write_bytes(data)


def _later(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(kept["manifest.json"])
    kept["manifest.json"] = json.dumps(manifest | {"version": 2}).encode()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def _truncated(bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-100])


def _missing(bundle: Path) -> None:
    bundle.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_wrong_checksum, "capitals.llmedit is damaged or cut short (Bad CRC-32"),
        (_outside, "its member '../../outside' would be written outside of its folder"),
        (_zeros, "as only a zip bomb does"),
        (_later, "is a bundle of version 2; this llm-edit reads version 1. Update llm-edit."),
        (_truncated, "is damaged or cut short"),
        (_missing, "cannot be read (No such file or directory)"),
    ],
)
def test_a_bundle_that_is_refused(
    run: Run, edited: str, bundle: Path, spoil: object, said: str
) -> None:
    run("sessions", "rm", "capitals", "--yes")
    assert callable(spoil)
    spoil(bundle)
    before = stored()
    ran = run("sessions", "import", bundle)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert said in one_line(ran.err)
    assert stored() == before
    assert sorted(bundle.parent.parent.rglob("outside")) == []


def test_another_model_of_the_same_name(
    run: Run, edited: str, bundle: Path, model: Path, tmp_path: Path
) -> None:
    """Elsewhere, the same name stands for other weights."""
    there = ("--home", tmp_path / "there")
    run("sessions", "list", *there)
    with closing(sqlite3.connect(tmp_path / "there" / "sessions.db")) as db, db:
        db.execute(
            "INSERT INTO model (name, source, fingerprint, dtype, model_type, info, created)"
            " VALUES (?, 'there', 'abc', 'float32', 'llama', '{}', '')", (str(model),)
        )  # fmt: skip
    ran = run("sessions", "import", bundle, *there)
    assert (ran.code, ran.out) == (2, "")
    assert "its edits do not fit" in one_line(ran.err)
    assert run("sessions", "list", "--json", *there).json["sessions"] == []
    assert run("sessions", "import", bundle, "--any-model", *there).code == 0
    assert QUESTION in run("sessions", "export", "capitals", "--format", "md", *there).out


def test_a_session_does_not_open_on_another_model(
    run: Run, edited: str, tmp_path: Path, tiny_folder: object
) -> None:
    assert callable(tiny_folder)
    other = shutil.copytree(tiny_folder("llama", chat=True), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    before = stored()
    ran = run("ask", QUESTION, "--session", edited, "--model", other)
    assert ran.code == 2
    assert "was made with another model" in one_line(ran.err)
    assert stored() == before


# -- the store itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["truncated", "missing"])
def test_a_tensor_file_that_is_not_whole(run: Run, edited: str, tmp_path: Path, spoil: str) -> None:
    (file,) = home().glob("tensors/*")
    data = file.read_bytes()
    file.unlink()
    if spoil == "truncated":
        file.write_bytes(data[: len(data) // 2])
    before = stored()
    for command in (
        ("ask", QUESTION, "--session", edited),
        ("sessions", "export", edited, "--out", tmp_path / "a.llmedit"),
    ):
        ran = run(*command)
        assert ran.code == 3
        assert f"{file} is" in one_line(ran.err)
        assert "Restore the file from a copy" in ran.err
    assert stored() == before
    assert not (tmp_path / "a.llmedit").exists()
    assert [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []
    assert "Melbourne" in run("sessions", "export", edited, "--format", "md").out
    file.write_bytes(data)
    assert run("ask", QUESTION, "--session", edited).code == 0


def test_a_home_that_cannot_be_made(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for command in (("sessions", "import", bundle), ("sessions", "list"), ("undo",)):
        ran = run(*command, "--home", tmp_path / "file" / "home")
        assert (ran.code, ran.out) == (3, "")
        assert "cannot be written" in one_line(ran.err)
        assert "LLM_EDIT_HOME" in ran.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_stops_an_import(
    run: Run, edited: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessions import blobs

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    run("sessions", "rm", "capitals", "--yes")
    before = stored()
    with monkeypatch.context() as patch:
        patch.setattr(blobs, "_write_synced", full)
        ran = run("sessions", "import", bundle)
    assert ran.code == 3
    assert "there is no space left" in one_line(ran.err)
    assert stored() == before
    assert run("sessions", "import", bundle).code == 0


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that end with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for one in processes:
        if one.poll() is None:
            one.kill()
        one.communicate()


def test_two_processes_on_one_database(
    run: Run, edited: str, bundle: Path, started: list[subprocess.Popen[str]]
) -> None:
    """One imports copies, one renames, at the same time: both are done, nothing is lost."""
    several = 2
    for n in range(several):
        started.append(process("sessions", "import", bundle, "--copy", "--title", f"copy {n}"))
        started.append(process("sessions", "rename", edited, f"name {n}"))
    for one in started:
        _, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
    titles = [row["title"] for row in run("sessions", "list", "--json").json["sessions"]]
    assert {f"copy {n}" for n in range(several)} < set(titles)
    assert len(titles) == several + 1
    assert run("doctor", "--json").json
