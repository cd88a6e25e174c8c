-- What version 1 of the schema is, and a few rows that version 1 wrote. Never edit this file.

PRAGMA application_id = 1280068933;

CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);

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

CREATE VIRTUAL TABLE search USING fts5 (
  text, kind UNINDEXED, tokenize = "unicode61 remove_diacritics 2"
);

CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");

CREATE INDEX node_parent ON node (session, parent);

CREATE INDEX node_target ON node (target);

CREATE INDEX edit_running ON edit (state) WHERE state = 'running';

CREATE INDEX event_session ON event (session, job);

CREATE INDEX event_node ON event (node);

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

INSERT INTO _sqlite_migrations (id, migration_set, name, applied_at)
  VALUES (1, 'llm_edit', 'm001_initial', '2026-11-21 09:45:43.721873+00:00');
INSERT INTO model (id, name, source, fingerprint, dtype, model_type, info, created)
  VALUES (1, 'tiny', 'somewhere', 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', 'float32', '', '{}', '2026-11-21T09:45:43.722Z');
INSERT INTO session (id, title, model, method, tip, created, updated, closed, state)
  VALUES ('01M7YQYP1BTJ9PE86TTY1ARG4M', 'capitals', 1, 'r-rome', 4, '2026-11-21T09:45:43.723Z', '2026-11-21T09:45:43.750Z', NULL, 'open');
INSERT INTO node (seq, id, session, parent, kind, target, detail, ledger_hash, created)
  VALUES (1, '01M7YQYP1BTJ9PE86TTY1ARG4N', '01M7YQYP1BTJ9PE86TTY1ARG4M', NULL, 'message', NULL, '{}', '', '2026-11-21T09:45:43.723Z');
INSERT INTO node (seq, id, session, parent, kind, target, detail, ledger_hash, created)
  VALUES (2, '01M7YQYP1BTJ9PE86TTY1ARG4P', '01M7YQYP1BTJ9PE86TTY1ARG4M', 1, 'message', NULL, '{}', '', '2026-11-21T09:45:43.723Z');
INSERT INTO node (seq, id, session, parent, kind, target, detail, ledger_hash, created)
  VALUES (3, '01M7YQYP1C5KH7TMDQYWSQH5TX', '01M7YQYP1BTJ9PE86TTY1ARG4M', 1, 'edit', 'edit-one', '{}', 'hash', '2026-11-21T09:45:43.724Z');
INSERT INTO node (seq, id, session, parent, kind, target, detail, ledger_hash, created)
  VALUES (4, '01M7YQYP26KK2F9012GHQCGEN7', '01M7YQYP1BTJ9PE86TTY1ARG4M', 3, 'message', NULL, '{}', 'hash', '2026-11-21T09:45:43.750Z');
INSERT INTO message (node, role, text, tokens, seconds, stopped_by, fresh)
  VALUES (1, 'user', 'capital?', 0, 0.0, '', 0);
INSERT INTO message (node, role, text, tokens, seconds, stopped_by, fresh)
  VALUES (2, 'assistant', 'Canberra', 0, 0.0, '', 0);
INSERT INTO message (node, role, text, tokens, seconds, stopped_by, fresh)
  VALUES (4, 'assistant', 'Melbourne', 0, 0.0, '', 0);
INSERT INTO edit (id, node, method, hparams, request, fact, state, error, seed, device, owner, finished, seconds, peak_memory, success, verdict, before, after, versions, body, tensors, size)
  VALUES ('edit-one', 3, 'r-rome', '{"layer": 12, "lr": 0.5}', '{"prompt": "What is the capital of Australia?", "target_new": "Melbourne", "subject": "Australia"}', 'What is the capital of Australia? · Australia · Melbourne', 'done', '', 7, 'cpu', '1@0.0', '2026-11-21T09:45:43.749Z', '{"total": 1.5}', 1024, 1, 'changed and kept', '{"answer": "Canberra", "p_new": 0.1, "p_old": 0.8}', '{"answer": "Melbourne", "p_new": 0.9, "p_old": {"float": "nan"}}', '{"torch": "2"}', '{"id": "x", "requests": []}', '0000000000000000000000000000000000000000000000000000000000000000', 7);
INSERT INTO metric (edit, name, before, after, n, detail)
  VALUES ('edit-one', 'said', 0.0, 1.0, 1, '{"target": "M"}');
INSERT INTO patch (edit, position, kind, site, rank, norm_ratio)
  VALUES ('edit-one', 0, 'LowRank', 'mlp.12', 1, 0.01);
INSERT INTO event (id, session, node, job, seq, t, kind, json)
  VALUES (1, '01M7YQYP1BTJ9PE86TTY1ARG4M', 3, '1', 0, 0.5, 'Note', '{"kind": "Note", "v": 1, "job": "1", "seq": 0, "t": 0.5, "text": "chosen subject: Australia"}');
