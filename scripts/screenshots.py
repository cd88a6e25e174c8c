"""Makes the screenshots of the documentation from the real application.

    python scripts/screenshots.py [OUT] [--png]

The assistant is scripted (tests/tui/scripted.py): no model is needed, and the pictures are the
same on every machine. `--png` also writes PNG files, with rsvg-convert and the fonts Fira Code
and DejaVu Sans Mono.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import re
import subprocess
import sys
from pathlib import Path

from rich.cells import cell_len

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tui")]

from scenes import SCENES, play  # noqa: E402

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


async def picture(name: str, size: tuple[int, int], theme: str) -> str:
    """One scene as SVG."""
    async with play(name, size, theme) as app:
        return app.export_screenshot(title="llm-edit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--png", action="store_true", help="PNG files beside the SVG files")
    parser.add_argument("--only", help="one scene")
    parser.add_argument("--theme", default="llm-edit-dark")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in [chosen.only] if chosen.only else SCENES:
        for size in SIZES:
            svg = re.sub(
                r"terminal-\d+", "terminal", asyncio.run(picture(name, size, chosen.theme))
            )
            path = chosen.out / f"{name}-{size[0]}x{size[1]}.svg"
            path.write_text(svg, encoding="utf-8")
            if chosen.png:
                command = ["rsvg-convert", "-w", "1400", "-o", str(path.with_suffix(".png"))]
                subprocess.run(command, input=on_grid(svg).encode(), check=True)
            sys.stderr.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
