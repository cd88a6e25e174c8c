"""Text from models and people, made fit for a terminal."""

from __future__ import annotations

from rich.cells import cell_len

# Control characters could move the cursor or change colours: they are shown as their pictures.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def visible(text: str) -> str:
    """The text with every control character replaced by a visible sign."""
    return text.translate(_PICTURES)


def clip(text: str, room: int) -> str:
    """One line of at most `room` cells, with an ellipsis where something was left out."""
    line = " ".join(visible(text).split())
    if cell_len(line) <= room:
        return line
    while line and cell_len(line) > room - 1:
        line = line[:-1]
    return line.rstrip() + "…" if room > 0 else ""
