"""The schema: from blank, twice, from stored versions.

`schemas/vN.sql` is what version N made, with a few rows; it is never edited once released. A new
migration adds vN+1.sql, and every older file keeps being opened here.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from sessions import Store, StoreTooNew
from sessions.migrations import APPLICATION_ID, SET, STEPS, applied, apply, latest, pending

SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture
def blank() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        yield db


def _schema(db: sqlite3.Connection) -> dict[str, str]:
    """Name to SQL of what we declare; not the shadow tables of full-text search."""
    rows = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'search\\_%'"
        " ESCAPE '\\'"
    )
    return {name: " ".join(sql.split()) for name, sql in rows}


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def _from_snapshot(home: Path, version: int) -> Path:
    home.mkdir(exist_ok=True)
    path = home / "sessions.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((SCHEMAS / f"v{version}.sql").read_text(encoding="utf-8"))
    return path


def test_from_blank(blank: sqlite3.Connection) -> None:
    assert (applied(blank), pending(blank)) == ([], True)
    apply(blank)
    assert applied(blank) == [step.__name__ for step in STEPS]
    assert not pending(blank)
    declared = {"model", "session", "node", "message", "edit", "metric", "patch", "event", "search"}
    assert declared <= set(_schema(blank))
    assert blank.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_what_was_run_is_what_sqlite_utils_has_noted(blank: sqlite3.Connection) -> None:
    """We read its table ourselves, without importing it."""
    apply(blank)
    noted = sqlite_utils.Migrations(SET).applied(sqlite_utils.Database(blank))
    assert applied(blank) == [step.name for step in noted]


def test_applied_twice_is_applied_once(blank: sqlite3.Connection) -> None:
    apply(blank)
    before = list(blank.iterdump())
    apply(blank)
    assert list(blank.iterdump()) == before


def test_opening_again_writes_nothing(home: Path) -> None:
    Store.open(home).close()
    before = (home / "sessions.db").read_bytes()
    Store.open(home).close()
    assert (home / "sessions.db").read_bytes() == before


def test_each_step_is_numbered_and_says_why_it_exists() -> None:
    for number, step in enumerate(STEPS, start=1):
        assert step.__name__.startswith(f"m{number:03}_")
    source = Path(migrations_file()).read_text(encoding="utf-8")
    assert source.count("# Why: ") == len(STEPS)


def migrations_file() -> str:
    import sessions.migrations

    return sessions.migrations.__file__


def test_the_newest_snapshot_is_the_schema_of_today(home: Path, tmp_path: Path) -> None:
    Store.open(home).close()
    with (
        closing(sqlite3.connect(home / "sessions.db")) as today,
        closing(sqlite3.connect(_from_snapshot(tmp_path / "old", latest()))) as stored,
    ):
        assert _schema(today) == _schema(stored)


@pytest.mark.parametrize("version", range(1, latest() + 1))
def test_every_stored_version_opens_and_is_read(home: Path, version: int) -> None:
    _from_snapshot(home, version)
    with Store.open(home) as store:
        session = store.session("capitals")
        assert session.model.name == "tiny"
        assert [m.text for m in store.conversation(session.id)] == ["capital?", "Melbourne"]
        (edit,) = store.active_edits(session.id)
        assert (edit.id, edit.state, edit.success) == ("edit-one", "done", True)
        assert edit.patches[0].site == "mlp.12"
        assert edit.metrics[0].after == 1.0
        assert [hit.kind for hit in store.search("australia")] == ["fact"]
        assert [hit.kind for hit in store.search("canberra")] == ["answer"]
        assert store.events(session.id)[0]["text"] == "chosen subject: Australia"
        assert store.check() == ["edit edit-one: " + _missing(home)]


def _missing(home: Path) -> str:
    return f"the tensor file {home / 'tensors' / ('0' * 64)}.safetensors is missing."


def test_a_later_schema_is_refused_untouched(home: Path) -> None:
    Store.open(home).close()
    path = home / "sessions.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('llm_edit', 'm007_later', 'some day')"
        )
    before = _dump(path)
    with pytest.raises(StoreTooNew) as caught:
        Store.open(home)
    assert caught.value.message == (
        f"{path} has schema version 7; this llm-edit knows up to version {latest()}."
    )
    assert "Update llm-edit" in caught.value.remedy
    assert caught.value.exit_code == 3
    assert _dump(path) == before


def test_a_step_that_fails_leaves_the_database_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessions import migrations as module

    Store.open(home).close()
    before = _dump(home / "sessions.db")

    def m002_half(db: sqlite_utils.Database) -> None:
        db.execute("CREATE TABLE half (x)")
        db.execute("CREATE TABLE half (x)")

    monkeypatch.setattr(module, "STEPS", (*STEPS, m002_half))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        Store.open(home)
    assert _dump(home / "sessions.db") == before


def test_the_documentation_names_every_table_and_no_other(home: Path) -> None:
    with Store.open(home) as store:
        rows = store._db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {row["name"] for row in rows if not row["name"].startswith("_")}
    text = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text(encoding="utf-8")
    section = text.split("## The schema in brief")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))
    assert named == {name for name in tables if "_" not in name}  # not FTS5's or SQLite's own
