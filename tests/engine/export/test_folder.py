"""An output folder is there whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import BadInput, MissingResource, NoSpace
from engine.export.folder import new_folder, write_new

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, sys
from pathlib import Path
from engine.export.folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os._exit(9)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with new_folder(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
        assert folder.parent.parent == out.parent  # the same disk: a rename, no copy
    assert names(out) == ["file"]
    assert names(out.parent) == ["out"]
    assert out.stat().st_mode & 0o055 == 0o055 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_killed_export_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out[1]"  # a name with meaning to glob
    ran = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=ROOT, timeout=60)
    assert ran.returncode == 9
    assert not out.exists()
    (hidden,) = names(tmp_path)
    assert hidden.startswith(".out[1].")
    (tmp_path / ".out[1].notes").mkdir()  # somebody else's
    with new_folder(out) as folder:
        (folder / "file").write_text("x")
        assert hidden not in names(tmp_path)
        # One that is being written is left alone.
        with new_folder(out) as other:
            (other / "file").write_text("y")
        assert folder.is_dir()
        (out / "file").unlink()
    assert (out / "file").read_text() == "x"
    assert names(tmp_path) == [".out[1].notes", "out[1]"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for name in ("file", "full"):
        with (
            pytest.raises(BadInput, match=f"{name} is there already.*--out"),
            new_folder(tmp_path / name),
        ):
            raise AssertionError
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "file").write_text("x")
    assert names(tmp_path / "empty") == ["file"]
    with pytest.raises(BadInput, match="is there already"), new_folder(tmp_path / "late") as folder:
        (tmp_path / "late").write_text("somebody was faster")
    assert (tmp_path / "late").read_text() == "somebody was faster"


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, NoSpace), (errno.EROFS, MissingResource)]
)
def test_trouble_with_the_disk_is_said_in_words(
    tmp_path: Path, number: int, error: type[MissingResource]
) -> None:
    with pytest.raises(error, match="--out") as found, new_folder(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    assert found.value.exit_code == 3
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(MissingResource, match="cannot be written"),
        new_folder(tmp_path / "file" / "out"),
    ):
        raise AssertionError


def test_a_file_is_written_whole_and_once(tmp_path: Path) -> None:
    out = tmp_path / "a" / "facts.jsonl"
    write_new(out, "é\n")
    assert out.read_bytes() == "é\n".encode()
    assert names(out.parent) == ["facts.jsonl"]
    with pytest.raises(BadInput, match="is there already"):
        write_new(out, "x")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(BadInput, match="is there already"):
        write_new(tmp_path / "folder.jsonl", "x")
