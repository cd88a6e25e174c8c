"""`llm-edit doctor`: whether this machine can do the work, and what it would do it with."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tui.console import table
from tui.narrate import size

from .common import options, print_json, stored

OK, INFO, MISSING = "ok", "info", "missing"
OPTIONAL = {
    "datasets": "bench",
    "matplotlib": "bench",
    "sentence_transformers": "retrieval",
    "bitsandbytes": "quant",
    "peft": "lora",
}
NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "textual", "prompt_toolkit")


@dataclass(frozen=True)
class Finding:
    """state: "ok", "info" (good to know) or "missing" (something essential)."""

    name: str
    state: str
    value: str


@click.command()
@options("name")
@click.option("--online", is_flag=True, help="Also ask whether the model hub can be reached.")
def doctor(model: str | None, online: bool, as_json: bool) -> int:
    """Check Python, torch, memory, disk, database and models. Exit code 3: something is missing."""
    checks: list[Callable[[], list[Finding]]] = [
        _python, _packages, _device, _machine, _folders, _database, lambda: _model(model),
        _extras, *([_hub] if online else []),
    ]  # fmt: skip
    findings = [finding for check in checks for finding in _safely(check)]
    healthy = all(f.state != MISSING for f in findings)
    if as_json:
        print_json({"healthy": healthy, "findings": findings})
    else:
        for line in table(("", "what", ""), [(f.state, f.name, f.value) for f in findings]):
            click.echo(line)
    return 0 if healthy else 3


def _safely(check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that itself breaks is a finding."""
    try:
        return check()
    except Exception as error:
        name = getattr(check, "__name__", "check").strip("_")
        return [Finding(name, MISSING, f"{type(error).__name__}: {error}")]


def _python() -> list[Finding]:
    fits = sys.version_info >= (3, 11)
    return [Finding("python", OK if fits else MISSING, platform.python_version())]


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in NEEDED:
        try:
            found.append(Finding(name, OK, version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, MISSING, "not installed: pip install llm-edit-chat"))
    return found


def _device() -> list[Finding]:
    import torch

    from engine.hardware import choose_device, cpu_has_bf16, free_memory

    device = choose_device("auto")
    if device.type == "cuda":
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        name, why = torch.cuda.get_device_name(device), "the GPU"
    else:
        half, name, why = cpu_has_bf16(), platform.processor() or platform.machine(), "the CPU"
    dtype = "bfloat16" if half else "float32"
    reason = f"{why} {'has' if half else 'has no'} native bfloat16"
    return [
        Finding("device", OK, f"{device} ({name})"),
        Finding("dtype", OK, f"{dtype}: {reason}"),
        Finding("free memory", OK, f"{size(free_memory(device))} on {device}"),
    ]


def _machine() -> list[Finding]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    return [
        Finding("threads", OK, f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        Finding("memory", OK, f"{size(memory.available)} of {size(memory.total)} available"),
    ]


def _folders() -> list[Finding]:
    from engine import paths

    return [_folder("home", paths.home()), _folder("cache", paths.cache())]


def _folder(name: str, path: Path) -> Finding:
    """Whether a folder, or the first of its parents that exists, can be written."""
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(name, MISSING, f"{path} cannot be written")
    return Finding(name, OK, f"{path}, {size(shutil.disk_usage(there).free)} free")


def _database() -> list[Finding]:
    """Read only: looking at a machine must not make a database on it."""
    from engine import paths
    from sessions.errors import SessionError
    from sessions.store import FILE

    if not (paths.home() / FILE).exists():
        return [Finding("database", INFO, "none yet; the first chat makes it")]
    try:
        with stored() as store:
            wrong = store.check()
            count = len(store.sessions())
    except SessionError as error:
        return [Finding("database", MISSING, str(error))]
    if wrong:
        return [Finding("database", MISSING, line) for line in wrong]
    return [Finding("database", OK, f"sound, {count} {'session' if count == 1 else 'sessions'}")]


def _model(name: str | None) -> list[Finding]:
    from engine import catalog, paths
    from engine.errors import LLMEditError
    from tui import settings

    from .models import cached

    try:
        chosen = name or settings.load()[0].model
        folder = cached(catalog.resolve_model(chosen))
    except LLMEditError as error:
        return [Finding("model", MISSING, str(error))]
    statistics = list((paths.cache() / "statistics").glob("*/*.safetensors"))
    where = f"{chosen}: {folder}" if folder else f"{chosen}: will be fetched on first use"
    return [
        Finding("model", OK if folder else INFO, where),
        Finding("statistics", INFO, f"{len(statistics)} kept; missing ones are computed"),
    ]


def _extras() -> list[Finding]:
    return [
        Finding(
            name,
            INFO,
            "installed"
            if importlib.util.find_spec(name)
            else f"not installed: pip install 'llm-edit-chat[{extra}]'",
        )
        for name, extra in OPTIONAL.items()
    ]


def _hub() -> list[Finding]:
    import urllib.error
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    request: Any = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        return [Finding("hub", INFO, f"{address} is out of reach ({reason})")]
    return [Finding("hub", OK, f"{address} answers")]
