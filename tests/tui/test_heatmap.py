"""A causal trace drawn: readable without colour, and safe whatever the tokens hold."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from engine.trace import Trace
from tui import heatmap

TRACE = Trace(
    prompt="The Space Needle is",
    tokens=("The", " Space", " Needle", " is"),
    subject=(1, 3),
    answer=" Seattle",
    clean=0.8,
    corrupted=0.1,
    positions=(0, 1, 2, 3),
    effects={
        "state": ((0.0, 0.0, 0.0), (0.1, 0.0, -0.2), (0.2, 0.4, 0.1), (0.0, 0.1, 0.7)),
        "mlp": ((0.0,) * 3, (0.0,) * 3, (0.0,) * 3, (0.0,) * 3),
    },
    window=2,
    samples=10,
    noise=0.1,
)


def test_a_cells_height_is_its_share_of_the_largest() -> None:
    found = heatmap.lines(TRACE, "state")
    assert found == [
        "hidden state behind one layer restored; █ = 0.700",
        "               The",
        "            Space* ▁",
        "           Needle* ▂▅▁",
        "                is  ▁█",
        "             layer 0",
    ]
    assert heatmap.lines(TRACE, "state", ascii_only=True)[4] == "                is  .@"
    # Nothing to see is drawn as nothing.
    assert heatmap.lines(TRACE, "mlp")[0] == "MLP outputs of 2 layers restored; █ = 0.000"


def test_a_deep_model_on_a_narrow_terminal() -> None:
    row = tuple(float(i) for i in range(100))
    deep = dataclasses.replace(TRACE, positions=(2,), effects={"mlp": (row,)})
    found = heatmap.lines(deep, "mlp", width=60)
    assert max(map(len, found[1:])) <= 60
    assert found[0].endswith("a column is 3 layers")
    assert found[1].endswith("█")
    assert found[-1].split() == ["layer", "0", "30", "60", "90"]


def test_tokens_cannot_steer_the_terminal_or_the_markup() -> None:
    nasty = dataclasses.replace(TRACE, tokens=("\x1b[31m", "<b>&", "\n", "\ud800$x$"))
    text = "\n".join(heatmap.lines(nasty, "state"))
    assert "\x1b" not in text
    root = ET.fromstring(heatmap.svg(nasty))
    told = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>&*" in told


def test_the_svg_has_a_cell_for_every_place() -> None:
    root = ET.fromstring(heatmap.svg(TRACE))
    cells = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if len(r)]
    assert len(cells) == 2 * 4 * 3
    fills = {r[0].text: r.attrib["fill"] for r in cells}
    assert fills["layer 2: 0.7000"] == "#08306b"
    assert fills["layer 2: -0.2000"] == fills["layer 0: 0.0000"] == "#f7fbff"


def test_files_by_their_ending(tmp_path: Path) -> None:
    heatmap.save(TRACE, tmp_path / "a.SVG")
    ET.parse(tmp_path / "a.SVG")
    with pytest.raises(ValueError, match=r"must end in \.svg or \.png"):
        heatmap.save(TRACE, tmp_path / "a.gif")


def test_png(tmp_path: Path) -> None:
    heatmap.save(dataclasses.replace(TRACE, tokens=("$x$", "a", "b", "東")), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
