"""`llm-edit models`: which there are, fetching one, what it is."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tui.console import table
from tui.narrate import size

from . import completing
from .common import finished, narrator, options, print_json

if TYPE_CHECKING:
    from engine.catalog import ModelSource
    from engine.events import Event


@click.group()
def models() -> None:
    """List, fetch and describe models."""


@models.command("list")
@options()
def list_(as_json: bool) -> None:
    """The aliases; hub ids, folders and .gguf files are accepted everywhere too."""
    from engine import catalog

    found = catalog.aliases()
    here = {name: cached(source) is not None for name, source in found.items()}
    if as_json:
        rows = [
            {"name": n, "kind": s.kind, "source": str(s), "cached": here[n], "summary": s.summary}
            for n, s in found.items()
        ]
        print_json({"models": rows})
        return
    lines = [(n, "yes" if here[n] else "", str(s), s.summary) for n, s in found.items()]
    for line in table(("name", "here", "source", "what it is"), lines):
        click.echo(line)


@models.command()
@click.argument("name", shell_complete=completing.models)
@options()
def fetch(name: str, as_json: bool) -> None:
    """Download and convert NAME, so that it loads at once."""
    from engine.catalog import resolve_model

    source = resolve_model(name)
    folder = _folder(source)
    if as_json:
        print_json({"name": name, "source": str(source), "folder": str(folder)})
    else:
        click.echo(f"{name} is in {folder}")


def _folder(source: ModelSource) -> Path:
    """The model's folder, fetched if need be; Ctrl+C leaves nothing half-made."""
    from engine.worker import Worker

    def work() -> Generator[Event, None, Path]:
        from engine.loading import locate

        return (yield from locate(source))

    worker = Worker()
    try:
        return finished(worker.submit("load", work), narrator())
    finally:
        worker.close()


@models.command()
@click.argument("name", shell_complete=completing.models)
@options()
def info(name: str, as_json: bool) -> None:
    """What NAME is, its shape and its size, where they are known without fetching it."""
    from engine.catalog import resolve_model

    source = resolve_model(name)
    folder = cached(source)
    told: dict[str, Any] = {
        "name": name,
        "kind": source.kind,
        "source": str(source),
        "summary": source.summary,
        "folder": str(folder) if folder else None,
        **_known(source, folder),
    }
    if as_json:
        print_json(told)
        return
    told["folder"] = told["folder"] or f"not here yet: llm-edit models fetch {name}"
    if "parameters" in told:
        told["parameters"] = f"{told['parameters'] / 1e6:.1f} million"
        told["stored"] = size(told["stored"])
    width = max(map(len, told))
    for key, value in told.items():
        if value not in ("", None):
            click.echo(f"{key.ljust(width)}  {value}")


def _known(source: ModelSource, folder: Path | None) -> dict[str, Any]:
    """The shape of what is here, or of what is pinned."""
    if source.kind == "asset":
        from engine.assets import asset

        wanted = asset(source.place)
        return {**wanted.shape, "stored": wanted.bytes, "licence": wanted.licence}
    return _shape(folder) if folder and folder.is_dir() else {}


def _shape(folder: Path) -> dict[str, Any]:
    """What configuration and tensor headers say; no weights are read."""
    from engine.checkpoint import read_checkpoint

    found = read_checkpoint(folder)
    config = found.config
    inner = config.get("text_config") or config
    return {
        "model_type": config.get("model_type"),
        "layers": _first(inner, "num_hidden_layers", "n_layer", "num_layers"),
        "width": _first(inner, "hidden_size", "n_embd", "d_model"),
        "vocabulary": inner.get("vocab_size"),
        "parameters": found.parameters,
        "stored": sum(tensor.end - tensor.start for tensor in found.tensors),
    }


def _first(config: dict[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if name in config), None)


def cached(source: ModelSource) -> Path | None:
    """Where a model is on this machine; None when it would have to be fetched. No torch."""
    if source.kind in ("folder", "gguf"):
        return source.path if source.path.exists() else None
    if source.kind == "asset":
        from engine.assets import asset

        wanted = asset(source.place)
        return wanted.path if wanted.present else None
    return _hub_folder(source)


def _hub_folder(source: ModelSource) -> Path | None:
    """A snapshot in the hub's cache, found without the hub's (slow) client."""
    from engine.checkpoint import read_checkpoint
    from engine.errors import ModelUnavailable

    snapshots = hub_cache() / f"models--{source.place.replace('/', '--')}" / "snapshots"
    for folder in sorted(snapshots.glob(source.revision or "*")):
        try:
            return read_checkpoint(folder).folder
        except ModelUnavailable:
            continue
    return None


def hub_cache() -> Path:
    """The hub client's cache, as its documentation says where it is."""
    import os

    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME", default)).expanduser() / "hub"
