"""Bundles put together by hand, as strangers might; and all that a store holds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sessions import BadBundle, EditRow, bundle

Members = dict[str, bytes]
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


def of(edits: Sequence[EditRow]) -> str:
    """As the engine's ledger does it."""
    ids = "\n".join(edit.id for edit in edits)
    return hashlib.sha256(ids.encode()).hexdigest() if edits else ""


def contents(home: Path) -> dict[str, object]:
    with closing(sqlite3.connect(home / "sessions.db")) as db:
        rows = list(db.iterdump())
    return {"rows": rows, "files": {p.name: p.read_bytes() for p in (home / "tensors").glob("*")}}
