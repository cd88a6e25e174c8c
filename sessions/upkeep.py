"""Is everything there, and is nothing there that should not be?"""

from __future__ import annotations

from pathlib import Path

from . import edits
from .blobs import Blobs
from .database import Connection
from .errors import CorruptTensors, from_os


def check(db: Connection, blobs: Blobs) -> list[str]:
    """Faults of the database, then edits whose tensor file is missing or altered."""
    faults = [row["integrity_check"] for row in db.rows("PRAGMA integrity_check")]
    faults = [] if faults == ["ok"] else faults
    for row in db.rows("PRAGMA foreign_key_check"):
        faults.append(f"a row of {row['table']} refers to a missing {row['parent']}.")
    for row in db.rows("SELECT id, tensors FROM edit WHERE tensors IS NOT NULL ORDER BY node"):
        try:
            blobs.read(row["tensors"])
        except CorruptTensors as error:
            faults.append(f"edit {row['id']}: {error.message}")
    return faults


def sweep(db: Connection, blobs: Blobs, min_age: float) -> list[Path]:
    """Remove tensor files without an edit. Inside a transaction, which keeps others from adding.

    Raises StoreReadOnly.
    """
    orphans = blobs.orphans(edits.named(db), min_age)
    for path in orphans:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise from_os(error, path) from error
    return orphans
