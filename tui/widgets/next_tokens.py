"""The likeliest next tokens of a prompt in two states, side by side."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from engine.compare import Reading

from ..compare import CompareRow
from ..comparison_text import percent, token
from ..texts import clip
from ..worddiff import GONE, NEW

BARS = "▏▎▍▌▋▊▉█"
EMPTY = "The likeliest next tokens of a prompt are shown here."


class NextTokens(Widget):
    """Ten lines: rank, token and probability in A, the same in B.

    A token marked − or + is not among the ten of the other state.
    """

    COMPONENT_CLASSES: ClassVar = {
        "next-tokens--head", "next-tokens--gone", "next-tokens--new", "next-tokens--quiet",
    }  # fmt: skip

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.row: CompareRow | None = None

    def show(self, row: CompareRow | None) -> None:
        if row != self.row:
            self.row = row
            self.refresh()

    def render(self) -> Text:
        row, width = self.row, self.size.width
        quiet = self._style("quiet")
        if row is None:
            return Text(EMPTY, quiet)
        room = (width - 4) // 2
        lines = [Text(clip(row.prompt.text, width), self._style("head")), Text()]
        lines.append(Text.assemble(("    " + "A".ljust(room) + "B", quiet)))
        a, b = _entries(row.a), _entries(row.b)
        for rank in range(max(len(a), len(b))):
            line = Text(no_wrap=True).append(f"{rank + 1:>2}  ", quiet)
            line.append_text(self._cell(a, rank, {t for t, _ in b}, GONE, room))
            line.append_text(self._cell(b, rank, {t for t, _ in a}, NEW, room))
            lines.append(line)
        if row.a is None or row.b is None:
            lines.append(Text("…", quiet))
        else:
            lines += [Text(), Text(f"{GONE} {NEW}  not among the ten of the other", quiet)]
        return Text("\n").join(lines)

    def _cell(
        self, entries: tuple[tuple[str, float], ...], rank: int, others: set[str], mark: str,
        room: int,
    ) -> Text:  # fmt: skip
        if rank >= len(entries):
            return Text(" " * room)
        text, p = entries[rank]
        away = bool(others) and text not in others
        chance = percent(p).rjust(7)
        name = clip((mark if away else " ") + token(text), room - len(chance) - 2)
        cell = Text(no_wrap=True)
        cell.append(name, self._style("gone" if mark == GONE else "new") if away else "")
        cell.append(" " * (room - cell.cell_len - len(chance) - 2))
        return cell.append(chance).append("  ")

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"next-tokens--{part}")


def _entries(reading: Reading | None) -> tuple[tuple[str, float], ...]:
    return reading.top if reading is not None else ()
