"""Makes the screenshots of the documentation from the real application.

    python scripts/screenshots.py              the pictures in docs/images, anew
    python scripts/screenshots.py --check      whether they show what the application shows now
    python scripts/screenshots.py --all OUT [--png]    every scene in two sizes

The assistant is scripted (tests/tui/scripted.py) and the replayed session is written by hand
(tests/tui/recorded.py): no model is needed, and the pictures are the same on every machine.
`--check` compares the texts and where they stand, not fonts, colours and identifiers. `--png`
also writes PNG files, with rsvg-convert and the fonts Fira Code and DejaVu Sans Mono.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.cells import cell_len

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tui")]

import recorded  # noqa: E402
from scenes import SCENES, play, rest  # noqa: E402
from scripted import Clock  # noqa: E402

from tui.player import Player  # noqa: E402
from tui.replaying import ReplayApp  # noqa: E402
from tui.tape import tape  # noqa: E402

IMAGES = ROOT / "docs" / "images"
REPLAY = "replay"  # a scene of its own: another application
DOCUMENTED = {  # picture -> scene
    "chat": "streaming",
    "edit-running": "edit-running",
    "edit-applied": "edit-applied",
    "history": "history",
    "comparison": "comparison",
    "replay": REPLAY,
}
CELL = 12.2  # width of a character cell in Textual's SVG
SIZES = ((120, 36), (80, 24))


def on_grid(svg: str) -> str:
    """The picture with each character in its own cell.

    Rasterisers ignore `textLength` and drop leading blanks, so that boxes would drift.
    """

    def split(match: re.Match[str]) -> str:
        attributes, body = match.group(1), html.unescape(match.group(2))
        x = re.search(r'\bx="([\d.]+)"', attributes)
        if "textLength" not in attributes or not x:
            return match.group(0)
        rest, place = re.sub(r'\s*(textLength|\bx)="[\d.]+"', "", attributes), float(x.group(1))
        out = []
        for char in body:
            if char not in " \u00a0\n":
                out.append(f'<text{rest} x="{place:.1f}">{html.escape(char, quote=False)}</text>')
            place += CELL * cell_len(char)
        return "".join(out)

    return re.sub(r"<text([^>]*)>([^<]*)</text>", split, svg)


def shown(svg: str) -> list[str]:
    """What a picture says, line by line, each character in its column."""
    rows: dict[float, list[str]] = {}
    for attributes, body in re.findall(r"<text([^>]*)>([^<]*)</text>", svg):
        place = {name: float(v) for name, v in re.findall(r'\b([xy])="([\d.]+)"', attributes)}
        row = rows.setdefault(place["y"], [])
        text = html.unescape(body).replace("\u00a0", " ").strip("\n")
        column = round(place["x"] / CELL)
        row += [" "] * (column - cell_len("".join(row)))
        row += text
    return ["".join(rows[y]).rstrip() for y in sorted(rows)]


async def picture(name: str, size: tuple[int, int], theme: str) -> str:
    """One scene as SVG; the same text every time. Fonts are those of the reader's machine."""
    if name == REPLAY:
        svg = await replayed(size)
    else:
        async with play(name, size, theme) as app:
            svg = app.export_screenshot(title="llm-edit")
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return re.sub(r"@font-face\s*\{[^}]*\}\s*", "", svg)


async def replayed(size: tuple[int, int]) -> str:
    """A recorded session in the middle of its first edit, stopped there."""
    with tempfile.TemporaryDirectory() as folder:
        found = tape(recorded.recording(Path(folder)))
    app = ReplayApp(Player(found, Clock().monotonic))
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        await pilot.press("space", "right_square_bracket", *["right"] * 9)
        await rest(pilot)
        return app.export_screenshot(title="llm-edit")


def drift(folder: Path, theme: str) -> list[str]:
    """How the pictures of the documentation differ from the application; empty: they do not."""
    said = []
    for name, scene in DOCUMENTED.items():
        file = folder / f"{name}.svg"
        now = shown(asyncio.run(picture(scene, SIZES[0], theme)))
        then = shown(file.read_text(encoding="utf-8")) if file.exists() else []
        said += difflib.unified_diff(then, now, str(file), "the application", "", "", 0, "")
    return said


def write(path: Path, svg: str, png: bool) -> None:
    path.write_text(svg, encoding="utf-8")
    if png:
        command = ["rsvg-convert", "-w", "1400", "-o", str(path.with_suffix(".png"))]
        subprocess.run(command, input=on_grid(svg).encode(), check=True)
    sys.stderr.write(f"{path}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=IMAGES)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--all", action="store_true", help="every scene, in two sizes")
    parser.add_argument("--png", action="store_true", help="PNG files beside the SVG files")
    parser.add_argument("--only", help="one scene, in two sizes")
    parser.add_argument("--theme", default="llm-edit-dark")
    chosen = parser.parse_args()
    if chosen.check:
        lines = drift(chosen.out, chosen.theme)
        for line in lines:
            print(line)
        if lines:
            sys.stderr.write("docs/images differ from the application. Make them anew:\n")
            sys.stderr.write("  python scripts/screenshots.py\n")
        return 1 if lines else 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not (chosen.all or chosen.only):
        for name, scene in DOCUMENTED.items():
            svg = asyncio.run(picture(scene, SIZES[0], chosen.theme))
            write(chosen.out / f"{name}.svg", svg, chosen.png)
        return 0
    for name in [chosen.only] if chosen.only else [*SCENES, REPLAY]:
        for size in SIZES:
            svg = asyncio.run(picture(name, size, chosen.theme))
            write(chosen.out / f"{name}-{size[0]}x{size[1]}.svg", svg, chosen.png)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
