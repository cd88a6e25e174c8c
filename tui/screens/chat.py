"""The main screen: conversation, correction as it happens, composer.

The screen owns the panes and what they show; the engine's work reaches it as events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult

from engine.errors import LLMEditError

from ..external import edited_outside
from ..views import Snapshot, TurnView
from ..widgets.bound import bindings
from ..widgets.composer import Completer, Composer
from ..widgets.history_search import HistorySearch
from ..widgets.key_bar import KeyBar
from ..widgets.status_bar import StatusBar
from ..widgets.transcript import Transcript
from .panes import PanesScreen

if TYPE_CHECKING:
    from ..app import EditApp

ADVICE = "llm-edit chat --plain works in any size."


class ChatScreen(PanesScreen):
    """What a person writes, below what was said and what is being changed."""

    BINDINGS: ClassVar = bindings("anywhere")
    AUTO_FOCUS = "#editor"

    def __init__(
        self, complete: Completer, memory: Callable[[], int], enter_sends: bool = True
    ) -> None:
        super().__init__()
        self._complete = complete
        self._enter_sends = enter_sends
        self._memory = memory

    @property
    def front(self) -> EditApp:
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield StatusBar(self._memory, id="status")
        yield from self.compose_panes()
        yield Composer(self._complete, enter_sends=self._enter_sends, id="composer")
        yield KeyBar(id="keys")
        yield from self.compose_too_small(ADVICE)

    def on_mount(self) -> None:
        self.call_after_refresh(self.front.begin)

    # -- parts -------------------------------------------------------------------------------

    @property
    def composer(self) -> Composer:
        return self.query_one(Composer)

    # -- state and events --------------------------------------------------------------------

    def show(self, snapshot: Snapshot, activity: str) -> None:
        """The status line, from the state and what the engine does."""
        self.query_one(StatusBar).show(snapshot, activity)
        self.query_one(KeyBar).show(self.transcript.has_focus, self.front.idle_keys())

    # -- keys --------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Stop the work; else close what is open; else go back to writing. Never quits."""
        if self.front.stop_work():
            return
        if self.composer.close_popup():
            return
        if self.pane != "chat":
            self.pane = "chat"
        self.composer.editor.focus()

    def action_search_history(self) -> None:
        """Choose from everything that was written; it goes into the editor."""
        self.app.push_screen(HistorySearch(self.composer.history), self._found)

    def _found(self, text: str | None) -> None:
        if text is not None:
            self.composer.set_text(text)
        self.composer.editor.focus()

    # -- messages of the widgets -------------------------------------------------------------

    def on_composer_sent(self, message: Composer.Sent) -> None:
        message.stop()
        self.front.send(message.text)

    def on_editor_outside(self) -> None:
        """Write on in $EDITOR; what was saved there is in the composer then, and not sent."""
        try:
            text = edited_outside(self.app, self.composer.editor.text)
        except LLMEditError as error:
            self.front.say(str(error), "bad")
            return
        self.composer.set_text(text)
        self.composer.editor.focus()

    def on_transcript_acted(self, message: Transcript.Acted) -> None:
        message.stop()
        self._act(message.action, message.turn, message.text)

    def _act(self, action: str, turn: TurnView | None, text: str) -> None:
        if action == "copy":
            self.front.copy(text)
        elif turn is None:
            self.notify("That message is not an answer.")
        elif action == "fix":
            self.front.corrections.open(turn=turn)
        elif action == "retry":
            self.front.retry(turn)
        elif action == "explain":
            self._explain(turn)

    def _explain(self, turn: TurnView) -> None:
        """What the edits did to an answer: `/why` with its number."""
        answered = [each.id for each in self.transcript.turns if each.answer]
        if turn.id in answered:
            self.front.commands.run_line(f"/why {answered.index(turn.id) + 1}")
            self.transcript.action_jump_end()  # it is said there
        else:
            self.notify("That question has no answer yet.")
