"""A causal trace as a picture: lines for a terminal, SVG, PNG.

In the terminal a cell's height is its value, so that nothing hangs on colour.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .console import printable

if TYPE_CHECKING:
    from engine.trace import Trace

TITLES = {
    "state": "hidden state behind one layer",
    "mlp": "MLP outputs of {} layers",
    "attention": "attention outputs of {} layers",
}
BARS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#%@"
LABEL = 18  # columns of a token's text
CELL, LEFT, TOP, GAP = 16, 150, 44, 40  # pixels of the SVG
LOW, HIGH = (247, 251, 255), (8, 48, 107)  # colours of 0 and of the largest effect


def labels(trace: Trace) -> list[str]:
    """The texts of the traced tokens; an asterisk marks the subject's."""
    first, behind = trace.subject
    found = []
    for at in trace.positions:
        text = " ".join(printable(trace.tokens[at]).split()) or repr(trace.tokens[at])
        found.append(text + ("*" if first <= at < behind else ""))
    return found


def title(trace: Trace, kind: str) -> str:
    return TITLES[kind].format(trace.window)


def lines(trace: Trace, kind: str, *, width: int = 80, ascii_only: bool = False) -> list[str]:
    """The heat map of one kind as text. A column is one layer, or several where the terminal is
    narrow (the largest of their effects)."""
    ramp = ASCII if ascii_only else BARS
    table = trace.effects[kind]
    layers = len(table[0]) if table else 0
    largest = max((value for row in table for value in row), default=0.0)
    share = max(1, -(-layers // max(1, width - LABEL - 1)))  # layers of a column
    told = f"{title(trace, kind)} restored; {ramp[-1]} = {max(largest, 0.0):.3f}"
    if share > 1:
        told += f"; a column is {share} layers"
    found = [told]
    for label, row in zip(labels(trace), table, strict=True):
        columns = [max(row[i : i + share]) for i in range(0, layers, share)]
        cells = "".join(ramp[_level(value, largest, len(ramp))] for value in columns)
        found.append(f"{_clipped(label):>{LABEL}} {cells}".rstrip())
    return [*found, f"{'layer':>{LABEL}} {_scale(layers, share)}"]


def _level(value: float, largest: float, levels: int) -> int:
    """0 for nothing (or less), the last for the largest."""
    if largest <= 0 or value <= 0:
        return 0
    return min(levels - 1, round(value / largest * (levels - 1)))


def _clipped(label: str) -> str:
    return label if len(label) <= LABEL else label[: LABEL - 2] + "…" + label[-1]


def _scale(layers: int, share: int) -> str:
    """Every tenth column's layer, written from that column on."""
    marks = ""
    for column in range(0, -(-layers // share), 10):
        marks += str(column * share).ljust(10)
    return marks.rstrip()


def svg(trace: Trace) -> str:
    """All kinds one below the other; each cell's number is its tooltip."""
    layers = max(len(rows[0]) for rows in trace.effects.values())
    rows = len(trace.positions)
    height = TOP + len(trace.effects) * (rows * CELL + GAP + CELL)
    width = LEFT + max(layers * CELL, 400) + 20
    head = headline(trace)
    room = width // 7  # letters of the headline
    head = head if len(head) <= room else "…" + head[1 - room :]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="13">{_safe(head)}</text>',
    ]
    top = TOP
    for kind, table in trace.effects.items():
        largest = max((value for row in table for value in row), default=0.0)
        parts.append(
            f'<text x="{LEFT}" y="{top}">{_safe(title(trace, kind))} restored, '
            f"darkest = {max(largest, 0.0):.3f}</text>"
        )
        top += 8
        for label, row in zip(labels(trace), table, strict=True):
            parts.append(
                f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{_safe(label)}</text>'
            )
            parts += [
                f'<rect x="{LEFT + i * CELL}" y="{top}" width="{CELL}" height="{CELL}" '
                f'fill="{_colour(value, largest)}"><title>layer {i}: {value:.4f}</title></rect>'
                for i, value in enumerate(row)
            ]
            top += CELL
        parts += [
            f'<text x="{LEFT + i * CELL}" y="{top + 12}">{i}</text>' for i in range(0, layers, 5)
        ]
        top += GAP + CELL - 8
    return "\n".join([*parts, "</svg>\n"])


def headline(trace: Trace) -> str:
    """What was traced, in one line."""
    prompt = " ".join(printable(trace.prompt).split())
    return (
        f"{prompt} → {printable(trace.answer).strip()}: p {trace.clean:.3f}, "
        f"{trace.corrupted:.3f} with the subject noised"
    )


def save(trace: Trace, path: Path) -> None:
    """Write a picture, SVG or PNG by the name's ending.

    Raises ValueError for another ending, ImportError where matplotlib is missing (PNG), OSError.
    """
    ending = path.suffix.lower()
    if ending == ".svg":
        path.write_text(svg(trace), encoding="utf-8")
    elif ending == ".png":
        _png(trace, path)
    else:
        raise ValueError(f"{path} must end in .svg or .png")


def _png(trace: Trace, path: Path) -> None:
    from matplotlib.figure import Figure

    kinds, rows = len(trace.effects), len(trace.positions)
    figure = Figure(figsize=(9, 1 + kinds * (1 + 0.22 * rows)), layout="constrained")
    figure.suptitle(_plain(headline(trace)), fontsize=9)
    for axes, (kind, table) in zip(
        figure.subplots(kinds, 1, squeeze=False)[:, 0], trace.effects.items(), strict=True
    ):
        image = axes.imshow(table, aspect="auto", cmap="Blues", vmin=0.0)
        axes.set_title(f"{title(trace, kind)} restored", fontsize=9)
        axes.set_yticks(range(rows), [_plain(label) for label in labels(trace)], fontsize=7)
        axes.set_xlabel("layer", fontsize=8)
        figure.colorbar(image, ax=axes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks becomes a box
        figure.savefig(path, dpi=150)


def _plain(text: str) -> str:
    """Without what matplotlib reads as mathematics."""
    return text.replace("$", r"\$")


def _colour(value: float, largest: float) -> str:
    share = min(1.0, max(0.0, value / largest)) if largest > 0 else 0.0
    mixed = (round(a + share * (b - a)) for a, b in zip(LOW, HIGH, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _safe(text: str) -> str:
    """Text of a model inside XML: no control characters, no markup."""
    shown = "".join(c for c in printable(text) if c.isprintable() or c == " ")
    return escape(shown.encode("utf-8", "replace").decode())
