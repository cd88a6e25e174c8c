"""Models from a hub: a small one that runs here, and none at all."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from engine import paths
from engine.assets import Asset, HubSource, fetch
from engine.catalog import resolve_model, user_file
from engine.errors import AssetUnavailable, ModelUnavailable, NoSpace
from engine.events import Loading
from engine.hub import fetch_repo
from engine.loading import load_model
from tests.engine.hub_server import Hub, running
from tests.engine.support import finish

REPO = "someone/tiny-gptj"


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def repo(tmp_path: Path, tiny_folder: Callable[..., Path]) -> Path:
    """A repository's files: a model, and things that are not to be fetched."""
    folder = tmp_path / "repo"
    (folder / "onnx").mkdir(parents=True)
    for file in tiny_folder("gptj").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "onnx/model.json"):
        (folder / name).write_bytes(b"not wanted")
    return folder


def test_a_repository_is_fetched_and_loaded(hub: Hub, repo: Path) -> None:
    commit = hub.add(REPO, repo)
    events, out = finish(load_model(resolve_model(REPO), dtype="fp32"))
    assert out.arch.model_type == "gptj"
    assert out.source == REPO
    downloads = [e for e in events if isinstance(e, Loading) and e.stage == "download"]
    assert downloads
    assert downloads[-1].done == downloads[-1].total > 10_000
    assert downloads[-1].unit == "B"
    assert out.folder.name == commit
    assert {path.name for path in out.folder.iterdir()} == {
        path.name for path in repo.iterdir() if path.suffix in (".json", ".safetensors")
    } - {"consolidated.safetensors"}


def test_a_cached_repository_asks_nobody(hub: Hub, repo: Path) -> None:
    hub.add(REPO, repo)
    _, first = finish(fetch_repo(REPO))
    hub.asked.clear()
    assert finish(fetch_repo(REPO)) == ([], first)
    assert finish(fetch_repo(REPO, offline=True)) == ([], first)
    assert hub.asked == []


def test_an_incomplete_copy_is_completed(hub: Hub, repo: Path) -> None:
    hub.add(REPO, repo)
    _, folder = finish(fetch_repo(REPO))
    (folder / "model.safetensors").unlink()
    events, again = finish(fetch_repo(REPO))
    assert events
    assert (again / "model.safetensors").read_bytes() == (repo / "model.safetensors").read_bytes()


def test_a_revision(hub: Hub, repo: Path) -> None:
    commit = hub.add(REPO, repo, "v2")
    _, out = finish(fetch_repo(REPO, "v2"))
    assert out.name == commit
    assert finish(fetch_repo(REPO, commit)) == ([], out)
    with pytest.raises(ModelUnavailable, match=f"{REPO} has no such revision"):
        finish(fetch_repo(REPO, "v3"))


def test_a_download_that_breaks_off(hub: Hub, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, repo)
    hub.cut = "model.safetensors"
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    with pytest.raises(ModelUnavailable, match=rf"the download of {REPO} broke off \(.*Try again"):
        finish(fetch_repo(REPO))
    hub.cut = ""
    _, folder = finish(fetch_repo(REPO))
    assert (folder / "model.safetensors").read_bytes() == (repo / "model.safetensors").read_bytes()


def test_closing_stops_a_download(hub: Hub, repo: Path) -> None:
    hub.add(REPO, repo)
    work = fetch_repo(REPO)
    assert isinstance(next(work), Loading)
    work.close()
    _, folder = finish(fetch_repo(REPO))
    assert (folder / "model.safetensors").is_file()


def test_pickles_are_refused(hub: Hub, repo: Path) -> None:
    (repo / "model.safetensors").unlink()
    hub.add(REPO, repo)
    with pytest.raises(ModelUnavailable) as caught:
        finish(fetch_repo(REPO))
    assert f"{REPO} has only pickled weights (pytorch_model.bin)" in caught.value.message
    assert "save_pretrained(FOLDER)" in caught.value.remedy
    assert not any("resolve" in path for path in hub.asked)  # nothing was fetched


def test_the_hubs_own_conversion_is_used(hub: Hub, repo: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((repo / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    hub.add(REPO, pickled)
    commit = hub.add(REPO, repo, "refs/pr/7")
    hub.pull_requests[REPO] = [
        {
            "num": number,
            "author": {"name": author},
            "title": title,
            "status": status,
            "isPullRequest": True,
            "createdAt": "2023-05-01T00:00:00.000Z",
            "repo": {"name": REPO, "type": "model"},
        }
        for number, author, title, status in (
            (3, "someone-else", "Adding `safetensors` variant of this model", "open"),
            (5, "SFconvertbot", "Adding `safetensors` variant of this model", "closed"),
            (7, "SFconvertbot", "Adding `safetensors` variant of this model", "open"),
        )
    ]
    _, folder = finish(fetch_repo(REPO))
    assert folder.name == commit
    hub.asked.clear()
    assert finish(fetch_repo(REPO)) == ([], folder)
    assert hub.asked == []


def test_gguf_only(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "model.Q4_0.gguf").write_bytes(b"GGUF")
    hub.add(REPO, folder)
    with pytest.raises(ModelUnavailable, match="has GGUF files and no safetensors"):
        finish(fetch_repo(REPO))


def test_no_such_repository_and_a_gated_one(hub: Hub) -> None:
    with pytest.raises(ModelUnavailable, match=f"the hub has no model {REPO} "):
        finish(fetch_repo(REPO))
    hub.gated.add(REPO)
    with pytest.raises(ModelUnavailable, match=f"{REPO} is gated.*hf auth login"):
        finish(fetch_repo(REPO))


def test_no_disk_space(hub: Hub, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, repo)
    little = shutil.disk_usage(repo)._replace(free=1 << 20)
    monkeypatch.setattr("engine.storage.shutil.disk_usage", lambda _folder: little)
    with pytest.raises(NoSpace, match="1 MB free"):
        finish(fetch_repo(REPO))


def test_out_of_reach_fails_soon_and_says_what_helps() -> None:
    began = time.monotonic()
    with pytest.raises(ModelUnavailable) as caught:
        finish(load_model(resolve_model("gpt-j")))
    assert time.monotonic() - began < 5
    assert "EleutherAI/gpt-j-6b is not in the cache and the hub is out of reach" in str(
        caught.value
    )
    for help_ in ("--model", "local folder", "HF_ENDPOINT", "mirror", "models.toml"):
        assert help_ in caught.value.remedy
    assert caught.value.exit_code == 3
    with pytest.raises(ModelUnavailable, match="is not in the cache, and offline was asked for"):
        finish(load_model(resolve_model("gpt-j"), offline=True))


def test_an_asset_whose_hub_is_out_of_reach(capfd: pytest.CaptureFixture[str]) -> None:
    own = {"name": "x", "kind": "text", "file": "x", "sha256": "", "bytes": 1, "licence": ""}
    began = time.monotonic()
    with pytest.raises(AssetUnavailable, match="x could not be fetched: a/b is not in the cache"):
        finish(fetch(Asset(**own, sources=(HubSource("a/b", "x"),))))
    assert time.monotonic() - began < 5
    assert capfd.readouterr() == ("", "")


def test_an_alias_mapped_to_a_folder_needs_no_hub(tiny_folder: Callable[..., Path]) -> None:
    user_file().parent.mkdir(parents=True)
    user_file().write_text(f'gpt-j = "{tiny_folder("gptj")}"\n')
    _, out = finish(load_model(resolve_model("gpt-j"), dtype="fp32"))
    assert (out.name, out.arch.model_type) == ("gpt-j", "gptj")
    assert out.source == str(tiny_folder("gptj"))


def test_an_asset_from_a_hub(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "thing.bin").write_bytes(b"content" * 1000)
    hub.add("someone/files", folder)

    def wanted(content: bytes) -> Asset:
        return Asset(
            name="thing",
            kind="text",
            file="thing.bin",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=7000,
            licence="",
            sources=(HubSource("someone/files", "thing.bin"),),
        )

    events, path = finish(fetch(wanted(b"content" * 1000)))
    assert path.read_bytes() == b"content" * 1000
    assert [p.name for p in path.parent.iterdir()] == ["thing.bin"]
    assert events[-1] == Loading(stage="download", done=7000, total=7000, unit="B")
    with pytest.raises(
        AssetUnavailable, match=r"thing\.bin of someone/files has the wrong content"
    ):
        finish(fetch(wanted(b"other")))
    elsewhere = (HubSource("someone/nothing", "thing.bin"),)
    with pytest.raises(AssetUnavailable, match="the hub has no model someone/nothing"):
        finish(fetch(dataclasses.replace(wanted(b""), sources=elsewhere)))
    assert len(list((paths.cache() / "assets").glob("*thing*"))) == 4  # one folder, three locks
