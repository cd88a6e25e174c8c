"""A thin bar with a sentence beside it. Its estimate comes from the steps' own times."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget


class ProgressLine(Widget):
    """`━━━━━━━╸──────  step 18/25 · 2.1 s left`"""

    COMPONENT_CLASSES: ClassVar = {
        "progress-line--done",
        "progress-line--rest",
        "progress-line--text",
    }
    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.share = 0.0
        self.text = ""

    def show(self, share: float, text: str) -> None:
        """`share` of the bar is filled, 0 to 1."""
        if (share, text) != (self.share, self.text):
            self.share, self.text = share, text
            self.refresh()

    def render(self) -> Text:
        room = max(6, self.size.width - cell_len(self.text) - 2)
        halves = round(min(1.0, max(0.0, self.share)) * room * 2)
        whole, half, rest = "=>-" if getattr(self.app, "ascii", False) else "━╸─"
        full = whole * (halves // 2) + (half if halves % 2 else "")
        line = Text(no_wrap=True, overflow="crop")
        line.append(full, self.get_component_rich_style("progress-line--done"))
        line.append(rest * (room - len(full)), self.get_component_rich_style("progress-line--rest"))
        line.append(f"  {self.text}", self.get_component_rich_style("progress-line--text"))
        return line
