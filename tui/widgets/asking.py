"""Two small questions: yes or no, and a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static


class Confirm(ModalScreen[bool]):
    """Ends with True only for a clear yes.

    lines   what will happen
    yes     the word on the button
    danger  it cannot be taken back: Enter says no unless the button is chosen
    """

    BINDINGS: ClassVar = [
        Binding("escape,n", "answer(False)", "No"),
        Binding("y", "answer(True)", "Yes"),
        Binding("left,right", "app.focus_next", "Other button", show=False),
    ]

    def __init__(self, title: str, lines: Sequence[str], *, yes: str, danger: bool = False) -> None:
        super().__init__()
        self._title, self._lines, self._yes, self._danger = title, tuple(lines), yes, danger

    def compose(self) -> ComposeResult:
        with Vertical(id="asking"):
            for line in self._lines:
                yield Static(line, classes="asking-line", markup=False)
            with Horizontal(id="asking-buttons"):
                yield Button(self._yes, id="asking-yes", compact=True, variant="primary")
                yield Button("Leave it", id="asking-no", compact=True)

    def on_mount(self) -> None:
        box = self.query_one("#asking")
        box.border_title = self._title
        box.border_subtitle = "y yes · n or Esc no"
        self.query_one("#asking-no" if self._danger else "#asking-yes").focus()

    @on(Button.Pressed)
    def _pressed(self, message: Button.Pressed) -> None:
        self.dismiss(message.button.id == "asking-yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class AskLine(ModalScreen["str | None"]):
    """Ends with what was written, stripped; with None when it was left, or nothing was written."""

    BINDINGS: ClassVar = [Binding("escape", "leave", "Cancel")]

    def __init__(self, title: str, value: str = "", *, hint: str = "") -> None:
        super().__init__()
        self._title, self._value, self._hint = title, value, hint

    def compose(self) -> ComposeResult:
        with Vertical(id="asking"):
            yield Input(self._value, id="asking-input")
            if self._hint:
                yield Static(self._hint, classes="asking-hint", markup=False)

    def on_mount(self) -> None:
        box = self.query_one("#asking")
        box.border_title = self._title
        box.border_subtitle = "Enter takes it · Esc leaves"
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _written(self, message: Input.Submitted) -> None:
        message.stop()
        self.dismiss(message.value.strip() or None)

    def action_leave(self) -> None:
        self.dismiss(None)
