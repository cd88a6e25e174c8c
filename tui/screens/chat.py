"""The main screen: conversation, correction as it happens, composer.

The screen owns the panes and what they show; the engine's work reaches it as events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Static

from engine.events import Event

from ..edit_state import EditState
from ..views import Snapshot, TurnView
from ..widgets.composer import Completer, Composer
from ..widgets.edit_pane import EditPane
from ..widgets.edit_strip import EditStrip
from ..widgets.key_bar import KeyBar
from ..widgets.log_pane import LogPane
from ..widgets.status_bar import StatusBar
from ..widgets.transcript import Transcript

if TYPE_CHECKING:
    from ..app import EditApp

SMALL = "This window is too small for the full screen.\nllm-edit chat --plain works in any size."


class ChatScreen(Screen[None]):
    """Draws; what is drawn comes from `take` (events) and `show` (the state)."""

    # Each applies from this many columns (rows) on, up to the next.
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-tiny"), (40, "-small"), (60, "-narrow"), (110, "-wide"),
    ]  # fmt: skip
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"), (10, "-low"), (18, "-medium"), (30, "-tall"),
    ]  # fmt: skip
    BINDINGS: ClassVar = [
        Binding("escape", "stop", "Stop", id="stop"),
        Binding("f2", "app.fix", "Fix", id="fix"),
        Binding("f3", "app.undo", "Undo", id="undo"),
        Binding("shift+f3,f15", "app.redo", "Redo", id="redo"),
        Binding("f6", "next_pane", "Panes", id="panes", priority=True),
        Binding("ctrl+end", "jump_end", "End", id="end", priority=True),
        Binding("f1,question_mark", "app.help", "Help", id="help"),
    ]

    pane: reactive[str] = reactive("chat", init=False)

    def __init__(
        self, complete: Completer, memory: Callable[[], int], enter_sends: bool = True
    ) -> None:
        super().__init__()
        self._complete = complete
        self._enter_sends = enter_sends
        self._memory = memory
        self.edit: EditState | None = None  # the correction that the panes show
        self._drawn = -1

    @property
    def front(self) -> EditApp:
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield StatusBar(self._memory, id="status")
        with Horizontal(id="main"):
            yield Transcript(id="transcript")
            with ContentSwitcher(initial="edit-pane", id="side"):
                yield EditPane(id="edit-pane")
                yield LogPane(id="log-pane")
        yield EditStrip(id="strip")
        yield Composer(self._complete, enter_sends=self._enter_sends, id="composer")
        yield KeyBar(id="keys")
        yield Static(SMALL, id="too-small", markup=False)

    def on_mount(self) -> None:
        self.composer.editor.focus()
        self.watch_pane()
        self.call_after_refresh(self.front.begin)

    # -- parts -------------------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def composer(self) -> Composer:
        return self.query_one(Composer)

    @property
    def log_pane(self) -> LogPane:
        return self.query_one(LogPane)

    # -- state and events --------------------------------------------------------------------

    def show(self, snapshot: Snapshot, activity: str) -> None:
        """The status line, from the state and what the engine does."""
        self.query_one(StatusBar).show(snapshot, activity)
        self.query_one(KeyBar).show(self.transcript.has_focus, self.front.idle_keys())

    def sync(self, snapshot: Snapshot) -> None:
        """The conversation and the edits, after a job has changed them."""
        self.transcript.sync(snapshot.turns, snapshot.edits)
        self.query_one(EditPane).show_ledger(snapshot)
        if self.edit is not None and self.edit.number:
            view = snapshot.edit(self.edit.number)
            self.edit.undone = view is not None and view.state == "undone"
            self.draw_edit()

    def watch_correction(self, state: EditState) -> None:
        """Show this correction from now on, the newest of all."""
        self.edit = state
        self.draw_edit()

    def take_edit(self, events: list[Event]) -> None:
        """Events of the correction that is shown."""
        if self.edit is not None:
            for event in events:
                self.edit.feed(event)
            self.draw_edit()

    def draw_edit(self) -> None:
        self.query_one(EditPane).show(self.edit)
        self.set_class(self.edit is not None, "-editing")
        self.query_one(EditStrip).show(self.edit)

    def on_resize(self) -> None:
        """What is cut to the width is cut anew."""
        self.call_after_refresh(self.draw_edit)

    # -- keys --------------------------------------------------------------------------------

    def watch_pane(self) -> None:
        for name in ("chat", "edit", "log"):
            self.set_class(self.pane == name, f"-pane-{name}")
        shown = "log-pane" if self.pane == "log" else "edit-pane"
        self.query_one("#side", ContentSwitcher).current = shown

    def action_next_pane(self) -> None:
        """Wide: edit and log in turn. Narrow: chat, edit, log, each over the whole width."""
        order = ("chat", "log") if self.has_class("-wide") else ("chat", "edit", "log")
        place = order.index(self.pane) if self.pane in order else 0
        self.pane = order[(place + 1) % len(order)]

    def action_jump_end(self) -> None:
        self.transcript.action_jump_end()

    def action_stop(self) -> None:
        """Stop the work; else close what is open; else go back to writing. Never quits."""
        if self.front.stop_work():
            return
        if self.composer.close_popup():
            return
        if self.pane != "chat":
            self.pane = "chat"
        self.composer.editor.focus()

    # -- messages of the widgets -------------------------------------------------------------

    def on_composer_sent(self, message: Composer.Sent) -> None:
        message.stop()
        self.front.send(message.text)

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
