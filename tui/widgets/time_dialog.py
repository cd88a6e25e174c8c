"""Asks for a time of the replay."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from .line import Line
from .transport import clock_text, parse_time


class TimeDialog(ModalScreen[float | None]):
    """Ends with seconds; None when it was left."""

    BINDINGS: ClassVar = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, length: float) -> None:
        """`length`: of the replay, in seconds."""
        super().__init__()
        self._length = length

    def compose(self) -> ComposeResult:
        with Vertical(id="time"):
            yield Input(placeholder="minutes:seconds, or seconds", id="time-text")
            yield Line("", id="time-reason")

    def on_mount(self) -> None:
        box = self.query_one("#time")
        box.border_title = "Go to a time"
        box.border_subtitle = f"0:00 to {clock_text(self._length)} · Esc closes"
        self.query_one(Input).focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        try:
            self.dismiss(parse_time(message.value))
        except ValueError as error:
            self.query_one("#time-reason", Line).show(str(error))
