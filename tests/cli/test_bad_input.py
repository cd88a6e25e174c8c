"""Bad input: one clear line, exit code 2 or 3, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Run, one_line
from .small import QUESTION


def home() -> Path:
    return Path(os.environ["LLM_EDIT_HOME"])


def stored() -> list[str]:
    """Every row of the database, "" where there is none yet."""
    file = home() / "sessions.db"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as db:
        return list(db.iterdump())


TARGET = ("--target", "Paris")
PROMPT = "The capital of Australia is"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("ask", "x", "--model", "smolm2-135m"),
         ["unknown model 'smolm2-135m'", "Did you mean 'smollm2-135m'?"]),
        (("edit", PROMPT, *TARGET, "--method", "r-rom"),
         ["unknown method 'r-rom'", "Did you mean 'r-rome'?"]),
        (("edit", PROMPT, *TARGET, "--subject", "France"), ["'France'", "not in the prompt"]),
        (("edit", "is it is", *TARGET, "--subject", "is"), ["occurs 2 times"]),
        (("edit", PROMPT, "--target", "  "), ["the target is empty"]),
        (("edit", PROMPT, *TARGET, "--old", "Paris"), ["equals the present answer", "'Paris'"]),
        (("edit", PROMPT), ["--target is missing"]),
        (("edit",), ["PROMPT or --file"]),
        (("edit", PROMPT, *TARGET, "--hp", "steps"), ["KEY=VALUE"]),
        (("edit", PROMPT, *TARGET, "--json", "--events"), ["exclude each other"]),
        (("ask", "x", "--model", "/nowhere/at/all"), ["/nowhere/at/all"]),
        (("ask", " "), ["the prompt is empty"]),
        (("ask", "x", "--session", "lost"), ["session 'lost' is not known"]),
        (("sessions", "show", "lost"),
         ["session 'lost' is not known. See llm-edit sessions list."]),
        (("undo",), ["nothing was edited yet"]),
        (("chat", "--continue", "--plain"), ["no session to continue"]),
        (("frobnicate",), ["unknown command 'frobnicate'"]),
        (("edit", "--file", "nowhere.jsonl"), ["nowhere.jsonl: there is no such file."]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_said_in_one_line(run: Run, arguments: tuple[str, ...], parts: list[str]) -> None:
    before = stored()
    ran = run(*arguments)
    assert ran.code in (2, 3)
    assert ran.out == ""
    for part in parts:
        assert part in one_line(ran.err)
    assert [line for line in stored() if 'INSERT INTO "session"' in line] == []
    assert before == [] or stored() == before


@pytest.mark.parametrize("arguments", [(), ("sessions",), ("models",)], ids=str)
def test_nothing_asked_shows_what_there_is(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: llm-edit")
    assert "error" not in ran.err


def test_of_many_names_some_are_listed(run: Run) -> None:
    error = one_line(run("ask", "x", "--model", "zzz").err)
    others = "See llm-edit models list; a hub id (org/name) or a folder will do too."
    assert error.endswith(f" more. {others}")
    assert error.count(",") == 19


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"prompt": "a", "target_new": "b"}', '{"prompt": "a"'], "facts.jsonl:2: is not JSON"),
        (['{"prompt": "a"}'], "facts.jsonl:1: missing field 'target_new'"),
        (["", '{"prompt": "a", "target_new": "b", "sbject": "a"}'], "facts.jsonl:2: unknown field"),
        (['{"prompt": "a", "target_new": "b", "subject": "c"}'], "facts.jsonl:1: the subject 'c'"),
        (["[1]"], "facts.jsonl:1: is not a JSON object"),
        ([""], "holds no facts"),
    ],
)
def test_a_broken_line_of_facts_names_file_and_line(
    run: Run, tmp_path: Path, lines: list[str], said: str
) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text("\n".join(lines))
    ran = run("edit", "--file", file)
    assert ran.code == 2
    assert said in one_line(ran.err)
    assert stored() == []


def test_a_file_that_is_no_text_or_a_folder(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b"\xff\xfe")
    assert one_line(run("edit", "--file", file).err) == f"error: {file}: is not UTF-8 text."
    folder = one_line(run("edit", "--file", tmp_path).err)
    assert folder == f"error: {tmp_path}: cannot be read (Is a directory)."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("steps: [1\nfast: yes\n", ".yaml:2: is not YAML"),
        ("stepz: 3\n", "unknown key 'stepz'"),
        ("steps: many\n", "'steps' must be a whole number, not 'many'"),
    ],
)
def test_a_broken_hyperparameter_file_names_file_and_line(
    run: Run, model: Path, content: str, said: str
) -> None:
    file = home() / "hparams" / "r-rome" / f"{model.name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    ran = run("edit", QUESTION, *TARGET, "--subject", "Australia", "--model", model)
    assert ran.code == 2
    error = one_line(ran.err)
    assert str(file) in error
    assert said in error
    assert run("config", "validate").code == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.toml", "model = \n", "config.toml:1: is not TOML"),
        ("config.toml", 'modle = "x"\n', "unknown key 'modle'"),
        ("config.toml", "seed = 'one'\n", "'seed' must be a whole number"),
        ("models.toml", "mine = 3\n", "models.toml:1"),
    ],
)
def test_a_broken_configuration_names_the_file(
    run: Run, name: str, content: str, said: str
) -> None:
    home().mkdir(parents=True)
    (home() / name).write_text(content)
    for command in (("config", "validate"), ("ask", QUESTION)):
        ran = run(*command)
        assert ran.code == 2
        assert said in one_line(ran.err)


def test_what_the_model_says_already_is_no_edit_and_no_error(
    run: Run, model: Path, small: tuple[object, ...]
) -> None:
    from engine.evaluate.normalise import begins_with

    prompt = "The Space Needle is in"
    said = run("ask", prompt, "--statement", "--model", model, "--dtype", "fp32").out.split()[0]
    assert begins_with(said, said)
    before = stored()
    ran = run(
        "edit", prompt, "--subject", "Space Needle", "--target", said, "--model", model, *small
    )
    assert (ran.code, ran.err.count("error")) == (0, 0)
    assert "nothing was edited, the target equals the present answer" in ran.out
    assert stored() == before


def test_a_model_with_a_missing_shard(run: Run, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").rename(broken / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    ran = run("ask", QUESTION, "--model", broken)
    assert ran.code == 3
    assert "model-00002-of-00002.safetensors" in one_line(ran.err)


def test_a_database_that_is_none(run: Run, model: Path) -> None:
    home().mkdir(parents=True)
    (home() / "sessions.db").write_bytes(b"not a database" * 500)
    for command in (
        ("ask", QUESTION, "--model", model),
        ("sessions", "list"),
        ("undo",),
        ("chat", "--plain", "--model", model),
    ):
        ran = run(*command)
        assert ran.code == 3
        assert "is not a database" in one_line(ran.err)
    assert (home() / "sessions.db").read_bytes() == b"not a database" * 500
    assert run("doctor", "--model", model).code == 3


def test_a_database_of_a_later_version(run: Run, model: Path) -> None:
    run("sessions", "list")
    with closing(sqlite3.connect(home() / "sessions.db")) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('llm_edit', 'm999_later', 'some day')"
        )
    before = stored()
    ran = run("edit", QUESTION, *TARGET, "--model", model)
    assert ran.code == 3
    assert "Update llm-edit" in one_line(ran.err)
    assert stored() == before


def test_a_full_disk_refuses_the_edit_and_keeps_what_was_there(
    run: Run, model: Path, small: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may not grow by a page: as SQLite reports a full disk."""
    from sessions import database

    run("ask", QUESTION, "--model", model)
    opened = database.Connection.open

    def cramped(*arguments: object) -> database.Connection:
        connection = opened(*arguments)  # type: ignore[arg-type]
        pages = connection.rows("PRAGMA page_count")[0]["page_count"]
        connection.raw.execute(f"PRAGMA max_page_count = {pages}").close()
        return connection

    with monkeypatch.context() as full:
        full.setattr(database.Connection, "open", cramped)
        for _ in range(40):  # the pages that are there have some room left
            done = finished_edits()
            ran = run(
                "edit", QUESTION, "--subject", "Australia", *TARGET, "--model", model, *small
            )  # fmt: skip
            if ran.code == 3:
                break
    assert ran.code == 3
    assert "no space" in one_line(ran.err)
    assert finished_edits() == done
    assert len(run("ask", QUESTION, "--model", model, "--json").json["edits"]) == len(done)


def finished_edits() -> list[str]:
    return [line for line in stored() if 'INSERT INTO "edit"' in line and "'done'" in line]
