"""Removing sessions for good: rows, the words in the index, tensor files, and the free space."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from . import edits, owner
from .blobs import Blobs
from .codec import dumps
from .database import Connection
from .errors import SessionBusy

_THESE = "IN (SELECT value FROM json_each(:ids))"


def remove(db: Connection, blobs: Blobs, sessions: Sequence[str]) -> int:
    """Remove these sessions, all or none; returns the number of tensor files that went along.

    Raises SessionBusy while a process makes an edit in one of them.
    """
    ids = {"ids": dumps(list(sessions))}
    db.raw.execute("PRAGMA secure_delete = ON")  # freed pages are overwritten with zeros
    with db.transaction():
        _refuse_busy(db, ids)
        found = db.rows(
            f"""SELECT DISTINCT tensors FROM edit JOIN node ON node.seq = edit.node
            WHERE node.session {_THESE} AND tensors IS NOT NULL""",
            ids,
        )
        db.execute(f"DELETE FROM session WHERE id {_THESE}", ids)
        # Words that were deleted stay in the index's older segments until these are merged.
        db.execute("INSERT INTO search (search) VALUES ('optimize')", {})
    # Not in the same transaction: if that had failed to commit, its files would be missing. And
    # in one at all: nobody can record an edit with the same tensors in between.
    with db.transaction():
        return blobs.discard({row["tensors"] for row in found} - edits.named(db))


def _refuse_busy(db: Connection, ids: dict[str, str]) -> None:
    running = db.rows(
        f"""SELECT session.id, title, owner FROM edit
        JOIN node ON node.seq = edit.node JOIN session ON session.id = node.session
        WHERE edit.state = 'running' AND session.id {_THESE}""",
        ids,
    )
    for row in running:
        if owner.is_alive(row["owner"]):
            process = row["owner"].partition("@")[0]
            raise SessionBusy(
                f"session {row['title'] or row['id']} is being edited by process {process}.",
                "Nothing was removed. Wait for it, or stop it.",
            )


def vacuum(db: Connection) -> bool:
    """Give free space back to the disk; False where others, or a full disk, prevent it now."""
    try:
        db.raw.execute("VACUUM")
        (busy, _, _) = db.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        return False
    return not busy
