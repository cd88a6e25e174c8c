"""Results on disk: a header line, then one JSON line per record. A killed run goes on."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BadFile, BadInput, MissingResource, unreadable

FORMAT = 1
JsonDict = dict[str, Any]


class Results:
    """The results file of one run.

    path, header
    rows   key -> row, in file order
    The header's `settings` say what was measured. Opening a file that was made with others is
    refused; `environment` (machine, versions, command) is that of the first start.
    """

    def __init__(self, path: Path, header: JsonDict, rows: dict[str, JsonDict]) -> None:
        self.path = path
        self.header = header
        self.rows = rows

    @classmethod
    def open(cls, path: Path, kind: str, settings: JsonDict, environment: JsonDict) -> Results:
        """Start a file, or go on with one.

        Raises BadInput when the file was made with other settings, MissingResource when it
        cannot be written.
        """
        settings = json.loads(json.dumps(settings))
        if path.exists() and path.stat().st_size:
            found = cls.read(path)
            if (found.header["kind"], found.header["settings"]) != (kind, settings):
                changed = _changed(found.header["settings"], settings)
                raise BadInput(
                    f"{path} holds results made with other settings ({changed}).",
                    "Choose another --out, or move the file away.",
                )
            found._cut_tail()
            return found
        header = {
            "format": FORMAT,
            "kind": kind,
            "settings": settings,
            "environment": environment,
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        results = cls(path, header, {})
        results._append(header)
        return results

    @classmethod
    def read(cls, path: Path) -> Results:
        """What has been recorded. A last line cut off by a crash is ignored.

        Raises BadFile naming the file and the line.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(path, None, unreadable(error)) from error
        rows: list[JsonDict] = []
        for number, line in enumerate(lines[:-1], start=1):  # after the last newline: incomplete
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise BadFile(path, number, f"is not JSON: {error.msg}.") from error
        if not rows or rows[0].get("format") != FORMAT or "settings" not in rows[0]:
            raise BadFile(path, 1, "is not the header of a bench results file.")
        return cls(path, rows[0], {row["key"]: row for row in rows[1:]})

    def add(self, key: str, row: JsonDict) -> JsonDict:
        """Record a row, on disk when this returns; NaN is recorded as null (not measured)."""
        row = _finite({"key": key, **row})
        self._append(row)
        self.rows[key] = row
        return row

    def of(self, **fields: Any) -> Iterator[JsonDict]:
        """Rows whose fields have these values."""
        for row in self.rows.values():
            if all(row.get(name) == value for name, value in fields.items()):
                yield row

    def _append(self, row: JsonDict) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise MissingResource(f"{self.path} cannot be written ({error.strerror}).") from error

    def _cut_tail(self) -> None:
        """Drop a last line that a killed run did not finish."""
        raw = self.path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            os.truncate(self.path, whole)


def name_of(*parts: str, settings: JsonDict) -> str:
    """A file name that tells settings apart: the parts, and 8 hex digits of them all."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    safe = ["".join(c if c.isalnum() or c in "-._" else "_" for c in p) for p in parts if p]
    return "-".join([*safe, digest]) + ".jsonl"


def environment(command: str) -> JsonDict:
    """What a number depends on besides the settings: machine, threads, versions, command."""
    import torch

    packages = ("llm-edit-chat", "torch", "transformers", "tokenizers")
    return {
        "command": command,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "platform": platform.platform(terse=True),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
    }


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _finite(value: Any) -> Any:
    """NaN and infinities as null: not measured."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _changed(old: JsonDict, new: JsonDict) -> str:
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    return ", ".join(f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in keys) or "another kind"
