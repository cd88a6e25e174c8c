"""A recording in the panes of the main screen, read-only, above a transport bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult

from ..keys import BY_ID
from ..player import SPEEDS, Player, told
from ..stage import Stage
from ..views import Snapshot
from ..widgets.bound import bindings, bound
from ..widgets.edit_pane import EditPane
from ..widgets.key_bar import KeyBar
from ..widgets.status_bar import StatusBar
from ..widgets.time_dialog import TimeDialog
from ..widgets.transcript import Note, Pending, Transcript
from ..widgets.transport import Transport
from .panes import PanesScreen

if TYPE_CHECKING:
    from ..replaying import ReplayApp

TICK = 1 / 8  # seconds between looks at the clock
LOGGED = 500  # lines of the log that are drawn after a jump
ADVICE = "llm-edit replay --plain works in any size."
SHARED = ("panes", "checks", "end", "stop")  # keys of the main screen that mean the same here
BAR = (
    ("replay.play", "play"), ("replay.previous", "event"), ("replay.next", "event"),
    ("replay.previous-edit", "edit"), ("replay.next-edit", "edit"), ("replay.leave", "leave"),
    ("help", "help"), ("replay.time", "time"), ("panes", "panes"),
)  # fmt: skip


class ReplayScreen(PanesScreen):
    """Draws the stage at which the player stands."""

    HELP = "A session as it was recorded. No model is loaded, and nothing is changed."
    PLACE = "replay"
    WELCOME = """\
A session as it was recorded: nothing can be asked or changed here.

    {0[replay.play]}  play, pause      {0[replay.next-edit]}  next edit      \
{0[help]}  all keys      {0[replay.leave]}  leave"""
    AUTO_FOCUS = ""  # the keys are those of the transport bar until Tab goes elsewhere
    BINDINGS: ClassVar = [*bindings("replay"), *(bound(BY_ID[name]) for name in SHARED)]

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.player = player
        self._stage: Stage | None = None  # that is drawn
        self._logged = 0  # the position up to which the log is drawn

    @property
    def front(self) -> ReplayApp:
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        yield StatusBar(lambda: 0, id="status")
        yield from self.compose_panes()
        yield Transport(self.player, id="transport")
        yield KeyBar(BAR, id="keys")
        yield from self.compose_too_small(ADVICE)

    def on_mount(self) -> None:
        self.set_interval(TICK, self.tick)
        if not self.player.moments:
            self.transcript.note("Nothing was recorded in this session.")
        self.player.play()
        self.draw()

    # -- drawing -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Go on to where the clock says."""
        if self.player.tick():
            self.draw()
        elif self.player.playing:
            self.query_one(Transport).refresh()

    def draw(self) -> None:
        """The stage at the position, where it is not drawn already."""
        self.query_one(Transport).refresh()
        stage = self.player.stage()
        self.query_one(StatusBar).show(self._snapshot(stage), stage.doing)
        self._draw_log()
        if stage == self._stage:
            return
        self._stage = stage
        if self.player.moments:
            notes = [Note(said.after, said.text, said.tone, None) for said in stage.said]
            self.transcript.stand(stage.turns, stage.edits, _pending(stage), notes)
        self.query_one(EditPane).show_ledger(self._snapshot(stage))
        self.edit = stage.edit
        self.draw_edit()

    def _draw_log(self) -> None:
        """Add what is new; after a jump back or far ahead, anew."""
        position = self.player.position
        if not self._logged <= position <= self._logged + LOGGED:
            self.log_pane.clear()
            self.log_pane.texts.clear()
            lines = self.player.log(LOGGED)
        else:
            moments = self.player.moments[self._logged : position]
            acts = self.player.tape.acts
            lines = [line for moment in moments for line in told(moment, acts[moment.act])]
        self._logged = position
        for line in lines:
            self.log_pane.say(line)

    def _snapshot(self, stage: Stage) -> Snapshot:
        recording = self.player.tape.recording
        model = recording.session.model
        device = next((edit.device for edit in recording.edits if edit.device), "")
        return Snapshot(
            model=model.name,
            method=recording.session.method,
            dtype=model.dtype,
            device=device,
            model_type=model.model_type,
            loaded=True,
            session_id=recording.session.id,
            session_title=recording.session.title or recording.session.short,
            turns=stage.turns,
            edits=stage.edits,
        )

    # -- keys --------------------------------------------------------------------------------

    def action_play_pause(self) -> None:
        if self.player.playing:
            self.player.stop()
        else:
            self.player.play()
        self.draw()

    def action_step(self, direction: int) -> None:
        self.player.step(direction)
        self.draw()

    def action_step_edit(self, direction: int) -> None:
        self.player.step_edit(direction)
        self.draw()

    def action_speed(self, index: int) -> None:
        self.player.set_speed(SPEEDS[index])
        self.draw()

    def action_time(self) -> None:
        self.app.push_screen(TimeDialog(self.player.length), self._go)

    def _go(self, seconds: float | None) -> None:
        if seconds is not None:
            self.player.seek_seconds(seconds)
            self.draw()

    def action_leave(self) -> None:
        self.app.exit(0)

    def action_stop(self) -> None:
        """Esc: close what is open, else leave."""
        if self.pane != "chat":
            self.pane = "chat"
        else:
            self.action_leave()

    def on_transport_sought(self, message: Transport.Sought) -> None:
        message.stop()
        self._go(message.seconds)

    def on_transcript_acted(self, message: Transcript.Acted) -> None:
        message.stop()
        if message.action == "copy":
            self.front.copy(message.text)
        else:
            self.notify("This is a replay: nothing can be asked or changed here.")


def _pending(stage: Stage) -> list[Pending]:
    reply = stage.reply
    if reply is None:
        return []
    place = reply.place if reply.place >= 0 else None
    return [Pending("replay", reply.question, reply.answer, reply.begun, place)]
