"""Names of models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine import paths
from engine.assets import assets
from engine.catalog import aliases, resolve_model, user_file
from engine.errors import BadFile, ModelUnavailable, UnknownName


def mine(text: str) -> Path:
    """The user's models.toml."""
    file = user_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_every_packaged_alias_means_something() -> None:
    known = aliases()
    assert len(known) > 50
    for name, source in known.items():
        assert resolve_model(name) == source
        assert source.name == name
        assert source.kind in ("asset", "hub")
        if source.kind == "asset":
            assert source.place in assets()
        else:
            assert source.place.count("/") == 1


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("gpt-j", "EleutherAI/gpt-j-6b"),
        ("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
        ("t5-xl", "google-t5/t5-3b"),
        ("t5-xl-lm-adapt", "google/t5-xl-lm-adapt"),
        ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
    ],
)
def test_aliases(name: str, place: str) -> None:
    assert resolve_model(name).place == place


def test_a_hub_id_needs_no_alias() -> None:
    source = resolve_model("someone/some-model")
    assert (source.kind, source.place, source.revision) == ("hub", "someone/some-model", None)
    pinned = resolve_model("someone/some-model@v1.0")
    assert (pinned.place, pinned.revision) == ("someone/some-model", "v1.0")
    assert str(pinned) == "someone/some-model@v1.0"


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(UnknownName, match=r"unknown model 'smollm2-135n'\. Did you mean 'smollm2-"):
        resolve_model("smollm2-135n")
    with pytest.raises(UnknownName, match=r"Available: bloom-1b7, "):
        resolve_model("zzz")


def test_local_folders_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    for name in (str(folder), f"{folder}/"):
        assert (resolve_model(name).kind, resolve_model(name).path) == ("folder", folder)
    for name in (str(tmp_path / "one.gguf"), str(tmp_path)):  # a folder that holds one
        assert (resolve_model(name).kind, resolve_model(name).path.name) == ("gguf", "one.gguf")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model").path == folder
    assert resolve_model("./model").path == folder


def test_an_alias_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("gpt2").kind == "hub"
    assert resolve_model("./gpt2").kind == "folder"


def test_paths_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"there is no .*/missing\."):
        resolve_model(str(tmp_path / "missing"))
    with pytest.raises(ModelUnavailable, match=r"has no config\.json"):
        resolve_model(str(tmp_path))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelUnavailable, match=r"several models: a\.gguf, b\.gguf"):
        resolve_model(str(tmp_path))
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ModelUnavailable, match=r"notes\.txt is not a \.gguf file"):
        resolve_model(str(tmp_path / "notes.txt"))


def test_the_user_overrides_and_adds(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "config.json").write_text("{}")
    mine(
        f'gpt-j = "{tmp_path}/j"\n'
        'ours = "us/our-model@main"\n'
        'favourite = "gpt2-xl"\n'
        '[table]\nhub = "us/other"\nrevision = "v2"\nsummary = "ours"\n'
    )
    assert (resolve_model("gpt-j").kind, resolve_model("gpt-j").path) == ("folder", tmp_path / "j")
    assert resolve_model("gpt-j").name == "gpt-j"
    assert resolve_model("ours").revision == "main"
    assert resolve_model("favourite").place == "openai-community/gpt2-xl"
    assert str(resolve_model("table")) == "us/other@v2"
    assert resolve_model("gpt2").place == "openai-community/gpt2"  # the others stay


def test_paths_are_relative_to_the_users_file() -> None:
    file = mine('near = "./models/near"\n')
    folder = file.parent / "models" / "near"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_model("near").path == folder


def test_an_unquoted_dot_in_a_name_is_part_of_the_name() -> None:
    mine('qwen2.5-7b = "us/a"\nqwen2.5-3b = "us/b"\n[llama-3.2-1b]\nhub = "us/c"\n')
    places = [resolve_model(name).place for name in ("qwen2.5-7b", "qwen2.5-3b", "llama-3.2-1b")]
    assert places == ["us/a", "us/b", "us/c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a = "us/a"\nb = \n', r"models\.toml:2: is not TOML: Invalid value"),
        ('a = "us/a"\nb = 3\n', r"models\.toml:2: b: expected a hub id, a path or a table"),
        ('[a]\nhub = "us/a"\nrevsion = "x"\n', r"models\.toml:1: a: unknown key 'revsion'; known"),
        ('[a]\nhub = "us/a"\nrevision = 2\n', r"models\.toml:1: a: 'revision' must be text"),
        ('[a]\nhub = "us/a"\npath = "/x"\n', r"exactly one of asset, hub and path"),
        ('\na = "no model"\n', r"models\.toml:2: a: 'no model' is neither an alias, a hub id"),
        ('a = "b"\nb = "a"\n', r"aliases go in a circle: a -> b -> a"),
    ],
)
def test_a_broken_file_is_named_with_the_line(text: str, message: str) -> None:
    mine(text)
    with pytest.raises(BadFile, match=message):
        resolve_model("gpt2")


def test_a_file_that_cannot_be_read() -> None:
    mine("").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match=r"is not UTF-8 text\."):
        resolve_model("gpt2")


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from engine.catalog import resolve_model; from engine import assets; "
        "resolve_model('gpt-j'); assets.asset('smollm2-135m'); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    root = paths.packaged("models.toml").parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
