"""The pictures of the documentation: drawn by the script, all shown, and drift is seen."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def screenshots() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "screenshots", ROOT / "scripts" / "screenshots.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module, path = importlib.util.module_from_spec(spec), list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path  # the script puts its own folders first
    return module


def test_every_picture_is_drawn_and_shown(screenshots: ModuleType) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [link for page in pages for link in re.findall(r"images/([\w.-]+)", page.read_text())]
    drawn = {f"{name}.svg" for name in screenshots.DOCUMENTED}
    assert set(links) == drawn == {file.name for file in screenshots.IMAGES.iterdir()}


def test_a_picture_says_its_text_whatever_its_fonts(screenshots: ModuleType) -> None:
    lines = (
        '<text class="a" x="0" y="20" textLength="24.4">&#160;b</text>'
        '<text class="b" x="48.8" y="20">&lt;c&gt;</text><text class="b" x="0" y="44.4">d</text>'
    )
    assert screenshots.shown(lines) == [" b  <c>", "d"]
    assert screenshots.shown(lines.replace('"a"', '"z"').replace("textLength", "lang")) == [
        " b  <c>",
        "d",
    ]


def test_drift_is_seen_and_named(
    screenshots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(screenshots, "DOCUMENTED", {"first": "empty"})

    def ran(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["screenshots.py", *arguments, str(tmp_path)])
        return int(screenshots.main())

    assert ran("--check") == 1  # there is none yet
    assert ran() == 0
    capsys.readouterr()
    assert ran("--check") == 0
    assert capsys.readouterr().out == ""
    file = tmp_path / "first.svg"
    file.write_text(file.read_text().replace("commands", "commandos"))
    assert ran("--check") == 1
    told = capsys.readouterr()
    assert "commandos" in told.out
    assert "python scripts/screenshots.py" in told.err
