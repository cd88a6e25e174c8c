"""Names of models, and what they stand for. Needs no torch.

A name is, in this order: an alias of the user's $LLM_EDIT_HOME/models.toml, an alias of
hparams/models.toml, a local folder or .gguf file, a hub id `org/name` (`org/name@revision`).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import paths
from .errors import BadFile, ModelUnavailable, UnknownName
from .tomlfile import line_of, read_toml

Kind = Literal["asset", "hub", "folder", "gguf"]

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_FIELDS = {"asset", "hub", "path", "revision", "summary"}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from.

    name      the alias, or the name as it was given
    kind      "asset" (hparams/assets.toml), "hub", "folder" (safetensors) or "gguf" (a file)
    place     name of the asset, hub id, or absolute path
    revision  branch, tag or commit on the hub
    """

    name: str
    kind: Kind
    place: str
    revision: str | None = None
    summary: str = ""

    @property
    def path(self) -> Path:
        """Of a folder or file."""
        return Path(self.place)

    def __str__(self) -> str:
        return f"{self.place}@{self.revision}" if self.revision else self.place


def user_file() -> Path:
    """Aliases of the user: override and add to the packaged ones."""
    return paths.home() / "models.toml"


def aliases() -> dict[str, ModelSource]:
    """All aliases by name. Paths in them are not looked at. Raises BadFile."""
    packaged = paths.packaged("models.toml")
    entries = {name: (value, packaged) for name, value in _entries(read_toml(packaged)).items()}
    mine = user_file()
    if mine.is_file():
        entries |= {name: (value, mine) for name, value in _entries(read_toml(mine)).items()}
    return {name: _source(name, entries) for name in entries}


def resolve_model(name: str) -> ModelSource:
    """What `name` stands for; nothing is fetched.

    Raises UnknownName (with what is near), ModelUnavailable (a path without a model) and
    BadFile (a broken models.toml).
    """
    known = aliases()
    if name in known:
        source = known[name]
        return _local(source.path, source) if source.kind in ("folder", "gguf") else source
    path = Path(name).expanduser()
    if path.exists() or _looks_like_path(name):
        return _local(path, ModelSource(name=name, kind="folder", place=str(path)))
    hub = _HUB_ID.fullmatch(name)
    if hub:
        return ModelSource(name=name, kind="hub", place=hub["repo"], revision=hub["revision"])
    others = "See llm-edit models list; a hub id (org/name) or a folder will do too."
    raise UnknownName("model", name, known, others)


def _looks_like_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~", ".\\")) or text.endswith(".gguf")


def _entries(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Alias -> value. An unquoted `qwen2.5-7b = "..."` nests in TOML; here it is one name."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and value and not _FIELDS & set(value):
            found |= _entries(value, name)
        else:
            found[name] = value
    return found


def _source(name: str, entries: dict[str, tuple[Any, Path]]) -> ModelSource:
    """The meaning of one alias; an alias may name another, which is not followed in circles."""
    seen = [name]
    while True:
        value, file = entries[seen[-1]]
        if not isinstance(value, str) or value not in entries or value == seen[-1]:
            break
        if value in seen:
            raise _bad(file, name, f"aliases go in a circle: {' -> '.join([*seen, value])}")
        seen.append(value)
    if isinstance(value, str):
        value = {"path" if _looks_like_path(value) else "hub": value}
    return _from_table(name, value, file)


def _from_table(name: str, value: Any, file: Path) -> ModelSource:
    if not isinstance(value, dict):
        raise _bad(file, name, "expected a hub id, a path or a table")
    unknown = sorted(set(value) - _FIELDS)
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise _bad(file, name, f"unknown key {unknown[0]!r}; known: {known}")
    mistyped = sorted(key for key, item in value.items() if not isinstance(item, str))
    if mistyped:
        raise _bad(file, name, f"{mistyped[0]!r} must be text")
    places = [key for key in ("asset", "hub", "path") if key in value]
    if len(places) != 1:
        raise _bad(file, name, "exactly one of asset, hub and path is needed")
    kind, place = places[0], value[places[0]]
    revision = value.get("revision")
    if kind == "hub":
        match = _HUB_ID.fullmatch(place)
        if not match:
            raise _bad(file, name, f"{place!r} is neither an alias, a hub id org/name nor a path")
        place, revision = match["repo"], revision or match["revision"]
    if kind == "path":  # relative to the file that says so
        place = str(file.parent / Path(place).expanduser())
    kinds: dict[str, Kind] = {
        "asset": "asset",
        "hub": "hub",
        "path": "gguf" if place.endswith(".gguf") else "folder",
    }
    return ModelSource(
        name=name,
        kind=kinds[kind],
        place=place,
        revision=revision,
        summary=value.get("summary", ""),
    )


def _bad(file: Path, name: str, message: str) -> BadFile:
    line = line_of(file, name) or line_of(file, name.rpartition(".")[2])
    return BadFile(file, line, f"{name}: {message}.")


def _local(path: Path, source: ModelSource) -> ModelSource:
    """A folder with config.json, a .gguf file, or a folder with one .gguf file."""
    path = path.expanduser().absolute()
    remedy = "Name a folder with config.json and *.safetensors, or a .gguf file."
    if not path.exists():
        raise ModelUnavailable(f"there is no {path}.", remedy)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelUnavailable(f"{path} is not a .gguf file.", remedy)
        return dataclasses.replace(source, kind="gguf", place=str(path))
    if (path / "config.json").is_file():
        return dataclasses.replace(source, kind="folder", place=str(path))
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return dataclasses.replace(source, kind="gguf", place=str(files[0]))
    if files:
        names = ", ".join(file.name for file in files)
        raise ModelUnavailable(f"{path} holds several models: {names}.", "Name one of the files.")
    raise ModelUnavailable(f"{path} has no config.json.", remedy)
