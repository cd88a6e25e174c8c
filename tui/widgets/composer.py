"""Where questions and commands are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import OptionList, TextArea
from textual.widgets.option_list import Option

from ..registry import Suggestion
from .bound import bindings

Completer = Callable[[str], Sequence[Suggestion]]


class Editor(TextArea):
    """A text area in which Enter sends. The popup's keys come first while it is open."""

    BINDINGS: ClassVar = bindings("writing")

    class Pressed(Message):
        """A key with a meaning for the composer."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Outside(Message):
        """The text is to be written in another editor."""

    def __init__(self, enter_sends: bool, *, id: str) -> None:
        super().__init__(
            id=id,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
            compact=True,
            placeholder="Ask something, or / for commands",
        )
        self._enter_sends = enter_sends
        self._chord = False  # Ctrl+X was pressed: Ctrl+E after it opens the editor

    def action_compose(self) -> None:
        self.post_message(self.Outside())

    def action_newline(self) -> None:
        """A new line; where Enter makes those, the other keys send."""
        if self._enter_sends:
            self.insert("\n")
        else:
            self.post_message(self.Pressed("enter"))

    def action_copy(self) -> None:
        """Without a selection, Ctrl+C belongs to the application (stop, quit)."""
        if self.selection.is_empty:
            raise SkipAction
        super().action_copy()

    def action_cut(self) -> None:
        """Without a selection, Ctrl+X begins Ctrl+X Ctrl+E."""
        if self.selection.is_empty:
            self._chord = True
        else:
            super().action_cut()

    def action_cursor_line_end(self, select: bool = False) -> None:
        if self._chord:
            self._chord = False
            self.action_compose()
        else:
            super().action_cursor_line_end(select)

    async def _on_key(self, event: events.Key) -> None:
        self._chord = self._chord and event.key == "ctrl+e"
        row, _ = self.cursor_location
        outward = (event.key == "up" and row == 0) or (
            event.key == "down" and row == self.document.line_count - 1
        )
        popup = self.screen.query_one(Composer).popup_open
        sends = event.key == "enter" and (self._enter_sends or popup)
        if sends or outward or (popup and event.key in ("tab", "up", "down")):
            event.stop()
            event.prevent_default()
            self.post_message(self.Pressed(event.key))
            return
        await super()._on_key(event)


class Composer(Vertical):
    """The editor, and above it the completions of a command that is being written."""

    HELP = "Ask a question, or begin a command with a slash."
    PLACE = "writing"

    class Sent(Message):
        """A line was sent: a question, or a command that begins with `/`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(
        self, complete: Completer, *, enter_sends: bool = True, id: str | None = None
    ) -> None:
        """`enter_sends` False: Enter makes a new line, and Ctrl+J or Alt+Enter send."""
        super().__init__(id=id)
        self._enter_sends = enter_sends
        self._complete = complete
        self._completions: list[Suggestion] = []
        self._moved = False  # another completion than the first was chosen
        self.history: list[str] = []  # oldest first
        self._place = 0  # in the matching history, counted from the newest; 0 is the draft
        self._draft = ""

    def compose(self) -> ComposeResult:
        popup = OptionList(id="completions", markup=False)
        popup.can_focus = False
        yield popup
        yield Editor(self._enter_sends, id="editor")

    def on_mount(self) -> None:
        self.query_one(OptionList).display = False

    @property
    def editor(self) -> Editor:
        return self.query_one(Editor)

    @property
    def popup_open(self) -> bool:
        return bool(self._completions)

    def set_text(self, text: str) -> None:
        """Replace what is written, cursor at the end."""
        self.editor.load_text(text)
        self.editor.move_cursor(self.editor.document.end)

    def set_history(self, lines: Sequence[str]) -> None:
        """What was written in earlier sessions, oldest first; this session's stays newest."""
        self.history = [*lines, *self.history]

    # -- keys --------------------------------------------------------------------------------

    def on_editor_pressed(self, message: Editor.Pressed) -> None:
        message.stop()
        if self.popup_open and self._popup_key(message.key):
            return
        if message.key == "enter":
            self._send()
        elif message.key in ("up", "down"):
            self._recall(1 if message.key == "up" else -1)

    def _send(self) -> None:
        text = self.editor.text.strip()
        if not text:
            return
        if not self.history or self.history[-1] != text:
            self.history.append(text)
        self._place = 0
        self.set_text("")
        self.close_popup()
        self.post_message(self.Sent(text))

    def _recall(self, step: int) -> None:
        """Older or newer lines that begin with the draft."""
        if self._place == 0:
            self._draft = self.editor.text
        matches = list(
            dict.fromkeys(line for line in reversed(self.history) if line.startswith(self._draft))
        )
        place = min(max(self._place + step, 0), len(matches))
        if place != self._place:
            self._place = place
            self.set_text(matches[place - 1] if place else self._draft)
            self.close_popup()

    # -- completions -------------------------------------------------------------------------

    def on_text_area_changed(self, message: TextArea.Changed) -> None:
        message.stop()
        text = self.editor.text
        recalled = self._place and text in self.history
        if not recalled:
            self._place = 0
        if text.startswith("/") and "\n" not in text and not recalled:
            self._open_popup(list(self._complete(text)))
        else:
            self.close_popup()

    def _open_popup(self, completions: list[Suggestion]) -> None:
        if [c.insert.strip() for c in completions] == [self.editor.text.strip()]:
            completions = []
        self._completions, self._moved = completions, False
        popup = self.query_one(OptionList)
        popup.display = bool(completions)
        popup.clear_options()
        width = max((len(c.label) for c in completions), default=0)
        popup.add_options(
            Option(Text.assemble(c.label.ljust(width), "   ", (c.hint, "dim"))) for c in completions
        )
        if completions:
            popup.highlighted = 0

    def close_popup(self) -> bool:
        """Hide the completions; False when there were none."""
        was_open, self._completions = self.popup_open, []
        self.query_one(OptionList).display = False
        return was_open

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self._take(message.option_index)
        self.editor.focus()

    def _popup_key(self, key: str) -> bool:
        """Act on a key while completions are shown; False when it is not for them."""
        popup = self.query_one(OptionList)
        text = self.editor.text
        chosen = self._completions[popup.highlighted or 0]
        if key == "up":
            popup.action_cursor_up()
            self._moved = True
        elif key == "down":
            popup.action_cursor_down()
            self._moved = True
        elif key == "tab":
            self._take(popup.highlighted or 0)
        elif not self._moved and (text.endswith(" ") or text == chosen.insert.strip()):
            return False  # Enter sends what is complete as it stands
        else:
            self._take(popup.highlighted or 0)
            return chosen.insert.endswith(" ")  # nothing more to write: Enter sends at once
        return True

    def _take(self, index: int) -> None:
        self.set_text(self._completions[index].insert)
