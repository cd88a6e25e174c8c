"""Finding words in questions, answers and facts."""

from __future__ import annotations

import re

from .database import Connection
from .rows import Hit


def search(db: Connection, text: str, limit: int) -> list[Hit]:
    """Texts that have every word of `text` (the last may be unfinished), best match first."""
    query = match_expression(text)
    if not query:
        return []
    rows = db.rows(
        """SELECT node.session, session.title, node.id AS node, search.kind, search.text,
            snippet(search, 0, '', '', '…', 12) AS snippet, node.created
        FROM search
        JOIN node ON node.seq = search.rowid
        JOIN session ON session.id = node.session
        WHERE search MATCH :query ORDER BY search.rank, node.seq DESC LIMIT :limit""",
        {"query": query, "limit": limit},
    )
    return [Hit(**row) for row in rows]


def match_expression(text: str) -> str:
    """An FTS5 query for the words of `text`; quoted, so that nothing in it is an operator."""
    words = re.findall(r"\w+", text)
    return " ".join(f'"{word}"' for word in words) + "*" if words else ""
