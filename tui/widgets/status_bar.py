"""The top line: model, device, edits, session, memory, and what the engine is doing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from ..narrate import count
from ..texts import clip
from ..views import Snapshot

GIB = 2**30


def resident_memory() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * 4096


def size_text(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


class StatusBar(Widget):
    """What the session stands at. Says "modified" when an edit is active, in words."""

    COMPONENT_CLASSES: ClassVar = {
        "status-bar--name",
        "status-bar--model",
        "status-bar--modified",
        "status-bar--activity",
        "status-bar--quiet",
    }
    ALLOW_SELECT = False

    def __init__(self, memory: Callable[[], int] = resident_memory, *, id: str) -> None:
        super().__init__(id=id)
        self._memory = memory
        self.snapshot: Snapshot | None = None
        self.activity = ""
        self._megabytes = 0

    def show(self, snapshot: Snapshot, activity: str) -> None:
        megabytes = self._memory() >> 20
        if (snapshot, activity, megabytes) != (self.snapshot, self.activity, self._megabytes):
            self.snapshot, self.activity, self._megabytes = snapshot, activity, megabytes
            self.refresh()

    def render(self) -> Text:
        width = self.size.width
        left, right = self._left(), self._right()
        gap = width - left.cell_len - right.cell_len - 2
        if gap < 2:  # the session's name gives way first
            right = Text(self.activity, self._style("activity"))
            gap = width - left.cell_len - right.cell_len - 2
        if gap < 1:
            left.truncate(max(0, width - right.cell_len - 3), overflow="ellipsis")
            gap = 1
        return Text.assemble(" ", left, " " * gap, right, " ", no_wrap=True, overflow="crop")

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"status-bar--{part}")

    def _left(self) -> Text:
        text = Text("llm-edit", self._style("name"), end="")
        shown = self.snapshot
        if shown is None:
            return text
        text.append("  ").append(clip(shown.model, 40), self._style("model"))
        hardware = " ".join(part for part in (shown.device, short_dtype(shown.dtype)) if part)
        if hardware:
            text.append(f" · {hardware}", self._style("quiet"))
        text.append(" · ", self._style("quiet"))
        text.append_text(self._edits(shown))
        return text

    def _edits(self, shown: Snapshot) -> Text:
        active = len(shown.active)
        undone = sum(1 for edit in shown.edits if edit.state == "undone")
        if not active and not undone:
            return Text("no edits", self._style("quiet"))
        words = f"{count(active, 'edit')} {'●' * min(active, 6)}".rstrip()
        if undone:
            words += f", {undone} undone {'○' * min(undone, 4)}"
        return Text(words, self._style("modified" if active else "quiet"))

    def _right(self) -> Text:
        text = Text(end="")
        if self.activity:
            text.append(self.activity, self._style("activity"))
        parts = []
        if self.snapshot and self.snapshot.session_title:
            parts.append(clip(self.snapshot.session_title, 28))
        if self.snapshot and self.snapshot.loaded and not self.snapshot.recording:
            parts.append("not being recorded")
        if self._megabytes:
            parts.append(size_text(self._megabytes << 20))
        if parts:
            text.append("   " if text else "").append(" · ".join(parts), self._style("quiet"))
        return text


def short_dtype(dtype: str) -> str:
    """ "torch.bfloat16" -> "bf16"."""
    name = dtype.removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)
