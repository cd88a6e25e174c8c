"""The schema, as a list of steps that only grows.

A step, once released, is never edited: databases exist that have run it. Each runs once, in a
transaction, and is recorded by name. The number in the name is the schema version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite_utils

APPLICATION_ID = 0x4C4C4D45  # "LLME", in the header of every database of ours
SET = "llm_edit"  # name of our steps in the table of those that were run


# Why: the first schema. Nodes are a tree that only grows, and a session's tip moves over it, so
# undo and branches lose nothing. `seq` is the internal key of nodes (joins, order, full-text
# rowid), `id` the one that is shown and exported. Columns for fields that later methods may shape
# freely (hparams, request, body) are JSON. Deferred foreign keys let a whole session be deleted:
# cascading from parent to child would recurse once per message and hit SQLite's limit.
_M001 = """
CREATE TABLE model (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  source TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  dtype TEXT NOT NULL,
  model_type TEXT NOT NULL,
  info TEXT NOT NULL,
  created TEXT NOT NULL,
  UNIQUE (name, fingerprint, dtype)
);

CREATE TABLE session (
  id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  model INTEGER NOT NULL REFERENCES model (id),
  method TEXT NOT NULL,
  tip INTEGER,
  created TEXT NOT NULL,
  updated TEXT NOT NULL,
  closed TEXT,
  state TEXT NOT NULL,
  FOREIGN KEY (id, tip) REFERENCES node (session, seq) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE node (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  parent INTEGER,
  kind TEXT NOT NULL,
  target TEXT REFERENCES edit (id) DEFERRABLE INITIALLY DEFERRED,
  detail TEXT NOT NULL,
  ledger_hash TEXT NOT NULL,
  created TEXT NOT NULL,
  UNIQUE (session, seq),
  FOREIGN KEY (session, parent) REFERENCES node (session, seq) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX node_parent ON node (session, parent);
CREATE INDEX node_target ON node (target);

CREATE TABLE message (
  node INTEGER PRIMARY KEY REFERENCES node (seq) ON DELETE CASCADE,
  role TEXT NOT NULL,
  text TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  seconds REAL NOT NULL,
  stopped_by TEXT NOT NULL,
  fresh INTEGER NOT NULL
);

CREATE TABLE edit (
  id TEXT PRIMARY KEY,
  node INTEGER NOT NULL UNIQUE REFERENCES node (seq) ON DELETE CASCADE,
  method TEXT NOT NULL,
  hparams TEXT NOT NULL,
  request TEXT NOT NULL,
  fact TEXT NOT NULL,
  state TEXT NOT NULL
    CHECK (state IN ('running', 'done', 'failed', 'cancelled', 'interrupted')),
  error TEXT NOT NULL DEFAULT '',
  seed INTEGER NOT NULL,
  device TEXT NOT NULL,
  owner TEXT NOT NULL,
  finished TEXT,
  seconds TEXT NOT NULL DEFAULT '{}',
  peak_memory INTEGER NOT NULL DEFAULT 0,
  success INTEGER,
  verdict TEXT NOT NULL DEFAULT '',
  before TEXT NOT NULL DEFAULT '{}',
  after TEXT NOT NULL DEFAULT '{}',
  versions TEXT NOT NULL DEFAULT '{}',
  body TEXT NOT NULL DEFAULT '{}',
  tensors TEXT,
  size INTEGER,
  CHECK (state <> 'done' OR tensors IS NOT NULL)
);
CREATE INDEX edit_running ON edit (state) WHERE state = 'running';

CREATE TABLE metric (
  edit TEXT NOT NULL REFERENCES edit (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  before REAL,
  after REAL,
  n INTEGER NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (edit, name)
);

CREATE TABLE patch (
  edit TEXT NOT NULL REFERENCES edit (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  site TEXT NOT NULL,
  rank INTEGER NOT NULL,
  norm_ratio REAL,
  PRIMARY KEY (edit, position)
);

CREATE TABLE event (
  id INTEGER PRIMARY KEY,
  session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  node INTEGER REFERENCES node (seq) ON DELETE CASCADE,
  job TEXT NOT NULL,
  seq INTEGER NOT NULL,
  t REAL NOT NULL,
  kind TEXT NOT NULL,
  json TEXT NOT NULL
);
CREATE INDEX event_session ON event (session, job);
CREATE INDEX event_node ON event (node);

CREATE VIRTUAL TABLE search USING fts5 (
  text, kind UNINDEXED, tokenize = "unicode61 remove_diacritics 2"
);
CREATE TRIGGER message_found AFTER INSERT ON message
WHEN new.role IN ('user', 'assistant') BEGIN
  INSERT INTO search (rowid, text, kind)
  VALUES (new.node, new.text, CASE new.role WHEN 'user' THEN 'question' ELSE 'answer' END);
END;
CREATE TRIGGER message_lost AFTER DELETE ON message BEGIN
  DELETE FROM search WHERE rowid = old.node;
END;
CREATE TRIGGER edit_found AFTER INSERT ON edit BEGIN
  INSERT INTO search (rowid, text, kind) VALUES (new.node, new.fact, 'fact');
END;
CREATE TRIGGER edit_lost AFTER DELETE ON edit BEGIN
  DELETE FROM search WHERE rowid = old.node;
END;
"""


def m001_initial(db: sqlite_utils.Database) -> None:
    db.executescript(_M001)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


STEPS = (m001_initial,)


def apply(raw: sqlite3.Connection) -> None:
    """Run the steps that were not run yet, each in a transaction (a savepoint inside of one)."""
    import sqlite_utils

    steps = sqlite_utils.Migrations(SET)
    for step in STEPS:
        steps()(step)
    steps.apply(sqlite_utils.Database(raw, execute_plugins=False))


def applied(raw: sqlite3.Connection) -> list[str]:
    """The names of the steps that were run, in their order."""
    table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"
    if raw.execute(table).fetchone() is None:
        return []
    ran = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid"
    return [name for (name,) in raw.execute(ran, (SET,))]


def pending(raw: sqlite3.Connection) -> bool:
    """Whether there are steps that were not run yet."""
    return not {step.__name__ for step in STEPS} <= set(applied(raw))


def unknown(raw: sqlite3.Connection) -> list[str]:
    """Steps that were run and that this version does not have: a later version wrote them."""
    known = {step.__name__ for step in STEPS}
    return [name for name in applied(raw) if name not in known]


def version(names: Iterable[str]) -> int:
    """The schema version that running these steps gives."""
    return max(int(name[1:4]) for name in names)


def latest() -> int:
    """The schema version of this llm-edit."""
    return version(step.__name__ for step in STEPS)
