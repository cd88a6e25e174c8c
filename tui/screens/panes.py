"""Conversation and correction side by side: what chat and replay have in common.

Draws; what is drawn comes from `sync` (the state) and `take_edit` (events). Without room for a
side pane F6 gives one of the panes the whole width.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Horizontal
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from engine.events import Event

from ..edit_state import EditState
from ..views import Snapshot
from ..widgets.edit_pane import EditPane
from ..widgets.edit_strip import EditStrip
from ..widgets.log_pane import LogPane
from ..widgets.metric_cards import MetricCards
from ..widgets.transcript import WELCOME, Transcript


class PanesScreen(Screen[None]):
    """Transcript, edit pane, log pane and strip, laid out for the size of the terminal."""

    # Each applies from this many columns (rows) on, up to the next.
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-tiny"), (40, "-small"), (60, "-narrow"), (110, "-wide"),
    ]  # fmt: skip
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"), (10, "-low"), (18, "-medium"), (30, "-tall"),
    ]  # fmt: skip

    WELCOME = WELCOME  # the transcript's while it has nothing else

    pane: reactive[str] = reactive("chat", init=False)

    def __init__(self) -> None:
        super().__init__(classes="-pane-chat")
        self.edit: EditState | None = None  # the correction that the panes show

    def compose_panes(self) -> Iterable[Widget]:
        """The middle of the screen."""
        self._fit()
        with Horizontal(id="main"):
            yield Transcript(self.WELCOME, id="transcript")
            with ContentSwitcher(initial="edit-pane", id="side"):
                yield EditPane(id="edit-pane")
                yield LogPane(id="log-pane")
        yield EditStrip(id="strip")

    def _fit(self) -> None:
        """The classes for the terminal's size, before there is a widget to be styled by them.

        Textual sets them after a first layout, and all is styled and laid out a second time.
        """
        size = self.app.size
        for cells, steps in (
            (size.width, self.HORIZONTAL_BREAKPOINTS),
            (size.height, self.VERTICAL_BREAKPOINTS),
        ):
            self.add_class(max(step for step in steps if step[0] <= cells)[1])

    def compose_too_small(self, advice: str) -> Iterable[Widget]:
        """What is shown in place of everything else below 40x10."""
        yield Static(
            f"This window is too small for the full screen.\n{advice}", id="too-small", markup=False
        )

    def on_mount(self) -> None:
        self.watch_pane()

    # -- parts -------------------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def log_pane(self) -> LogPane:
        return self.query_one(LogPane)

    # -- state and events --------------------------------------------------------------------

    def sync(self, snapshot: Snapshot) -> None:
        """The conversation and the edits, after a job has changed them."""
        self.transcript.sync(snapshot.turns, snapshot.edits)
        self.query_one(EditPane).show_ledger(snapshot)
        if self.edit is not None and self.edit.number:
            view = snapshot.edit(self.edit.number)
            self.edit.undone = view is not None and view.state == "undone"
            self.draw_edit()

    def moved(self, turns: int, *, other: bool) -> None:
        """The conversation has these many turns now; `other`: it is another session's."""
        self.transcript.cut_notes(0 if other else turns)
        if other:
            self.edit = None
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
        """Wide: the log beside the chat, then the edit over the whole width. Else: each in turn
        over the whole width."""
        order = ("chat", "log", "edit") if self.has_class("-wide") else ("chat", "edit", "log")
        place = order.index(self.pane) if self.pane in order else 0
        self.pane = order[(place + 1) % len(order)]

    def action_jump_end(self) -> None:
        self.transcript.action_jump_end()

    def action_details(self) -> None:
        """The checks of the edit that the panes show, from the first that was made on."""
        self._details("")

    def on_metric_cards_opened(self, message: MetricCards.Opened) -> None:
        message.stop()
        self._details(message.name)

    def _details(self, name: str) -> None:
        if self.edit is None or not self.edit.metrics:
            self.notify("No checks were made yet: they come with a correction.")
            return
        from ..widgets.check_details import CheckDetails

        self.app.push_screen(CheckDetails(self.edit.title, self.edit.metrics, name))
