"""How sessions can be named on a command line, read without opening the store for work.

Pressing Tab must not make a database, bring one up to date, or wait for anything.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from .ids import short

FILE = "sessions.db"


def session_names(home: Path) -> list[tuple[str, str]]:
    """(short id, title) of every session, last used first; nothing where they cannot be read."""
    file = home / FILE
    if not file.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT id, title FROM session ORDER BY updated DESC, id DESC")
            return [(short(str(id)), str(title)) for id, title in rows]
    except sqlite3.Error:
        return []
