"""History: the sessions, and the timeline of one of them with its branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input

from sessions.bundle import file_name
from sessions.ids import short
from sessions.rows import Hit, SessionRow

from ..texts import clip
from ..timeline_text import plan_sentence
from ..tree import NodeView, Timeline
from ..views import Moved, UndoPlan
from ..widgets.asking import AskLine, Confirm
from ..widgets.bound import bindings
from ..widgets.key_bar import Bar, KeyBar
from ..widgets.session_list import SessionList
from ..widgets.status_bar import StatusBar
from ..widgets.timeline_list import TimelineList
from .side import SideScreen

LINE_BAR: Bar = (
    ("timeline.show", "show"), ("timeline.undo", "undo"), ("timeline.branch", "branch"),
    ("timeline.diff", "diff"), ("history.other", "sessions"), ("stop", "back"),
    ("history.search", "search"), ("timeline.redo", "redo"), ("help", "help"),
    ("timeline.export", "export"),
)  # fmt: skip
SESSION_BAR: Bar = (
    ("session.show", "timeline"), ("session.open", "open"), ("session.rename", "rename"),
    ("session.delete", "delete"), ("session.export", "export"), ("history.search", "search"),
    ("stop", "back"), ("help", "help"),
)  # fmt: skip
SEARCH_BAR: Bar = (("session.show", "results"), ("stop", "all sessions"))


class HistoryScreen(SideScreen):
    """Left the sessions, right the timeline of the chosen one.

    In a narrow window the two take turns: Tab changes between them.
    """

    CSS_PATH = "history.tcss"
    PLACE = "history"
    BINDINGS: ClassVar = bindings("history")

    def __init__(self, memory: Callable[[], int]) -> None:
        super().__init__()
        self._memory = memory
        self._looking = ""  # the session whose timeline was asked for last
        self._searched = ""

    def compose(self) -> ComposeResult:
        yield StatusBar(self._memory, id="status")
        with Horizontal(id="history"):
            with Vertical(id="sessions"):
                yield Input(placeholder="/ search everything", id="history-search", compact=True)
                yield SessionList(id="session-list")
            yield TimelineList(id="timeline")
        yield KeyBar(LINE_BAR, id="keys")
        yield self._small

    def on_mount(self) -> None:
        self.query_one("#sessions").border_title = "Sessions"
        self.lines.border_title = "Timeline"
        self.look(self.snapshot.session_id)
        self._list()
        self.lines.focus()

    @property
    def lines(self) -> TimelineList:
        return self.query_one(TimelineList)

    @property
    def session_list(self) -> SessionList:
        return self.query_one(SessionList)

    def bar(self) -> Bar:
        if isinstance(self.focused, Input):
            return SEARCH_BAR
        return SESSION_BAR if self.focused is self.session_list else LINE_BAR

    # -- what is shown -----------------------------------------------------------------------

    def changed(self) -> None:
        """Something was said, edited or undone meanwhile."""
        self.look(self._looking or self.snapshot.session_id)
        self._list()

    def _list(self) -> None:
        """The sessions, or the search that is written."""
        text = self.query_one(Input).value.strip()
        self._searched = text
        archive = self.front.assistant.archive
        if not text:
            self.submit(archive.sessions(), self._listed)
            return

        def found(hits: list[Hit]) -> None:
            if text == self._searched:  # not overtaken by another search
                self._found(hits)

        self.submit(archive.search(text), found)

    def _listed(self, rows: Sequence[SessionRow]) -> None:
        if not self._searched:
            snapshot = self.snapshot
            self.session_list.show_sessions(rows, snapshot.session_id, snapshot.model)
            self.query_one("#sessions").border_subtitle = ""

    def _found(self, hits: Sequence[Hit]) -> None:
        self.session_list.show_hits(hits)
        found = f"{len(hits)} found" if hits else "nothing found"
        self.query_one("#sessions").border_subtitle = found

    def look(self, session: str, node: str = "") -> None:
        """Show the timeline of a session, the cursor on a node."""
        self._looking = session
        if not session:
            self.lines.show(None)
            self.lines.border_subtitle = "nothing was said yet"
            return

        def read(timeline: Timeline) -> None:
            if timeline.session == self._looking:
                self._read(timeline, node)

        self.submit(self.front.assistant.archive.timeline(session), read)

    def _read(self, timeline: Timeline, node: str) -> None:
        lines = self.lines
        lines.show(timeline, node)
        name = clip(timeline.title or short(timeline.session), 40)
        lines.border_title = f"Timeline of {name}"
        here = timeline.session == self.snapshot.session_id
        lines.border_subtitle = "" if here else f"{clip(timeline.model, 30)} · o opens it"

    @on(Input.Changed, "#history-search")
    def _typed(self) -> None:
        self._list()

    @on(Input.Submitted, "#history-search")
    def _sent(self) -> None:
        self.session_list.focus()

    @on(SessionList.Chosen)
    def _chosen(self, message: SessionList.Chosen) -> None:
        if message.session != self._looking or message.node:
            self.look(message.session, message.node)

    # -- keys --------------------------------------------------------------------------------

    def action_search(self) -> None:
        self.add_class("-left")
        self.query_one(Input).focus()

    def action_other(self) -> None:
        """To the other pane."""
        left = self.focused is self.lines
        self.set_class(left, "-left")
        (self.session_list if left else self.lines).focus()

    def action_stop(self) -> None:
        """Out of the search; stop the work; back to the conversation: in this order."""
        field = self.query_one(Input)
        if field.has_focus or field.value:
            field.value = ""
            self.session_list.focus()
            return
        super().action_stop()

    @on(SessionList.Acted)
    def _on_session(self, message: SessionList.Acted) -> None:
        getattr(self, f"_{message.action}_session")(message.session)

    @on(TimelineList.Acted)
    def _on_line(self, message: TimelineList.Acted) -> None:
        node, action = message.node, message.action
        timeline = self.lines.timeline
        if node is None or timeline is None:
            self.say("There is nothing here yet.")
        elif action == "export":
            self._export_session(timeline.session)
        elif action == "diff":
            self._diff(timeline, node)
        elif timeline.session != self.snapshot.session_id:
            self.say("This is another session: open it first (o in the list of sessions).")
        else:
            getattr(self, f"_{action}")(node)

    # -- on a line of the open session -------------------------------------------------------

    def _jump(self, node: NodeView) -> None:
        """Show it in the conversation."""
        turns = self.snapshot.turns
        wanted = {node.id}
        number = node.edit.number if node.kind == "edit" and node.edit else -1
        for place, turn in enumerate(turns):
            if wanted & {turn.id, turn.asked} or turn.edited_by == number:
                self.dismiss()
                self.front.chat.transcript.reveal(place, question=node.id == turn.asked)
                return
        self.say("That is on another branch: b goes on from there.")

    def _undo(self, node: NodeView) -> None:
        """Say what will happen; then undo to here."""

        def planned(plan: UndoPlan) -> None:
            if not plan.edits:
                self.say("No edit was made since: nothing to undo. b goes on from here.")
                return
            question = Confirm("Undo to here", [plan_sentence(plan)], yes="Undo")
            self.app.push_screen(question, decided)

        def decided(yes: bool | None) -> None:
            if yes:
                self.submit(self.front.assistant.undo_to(node.id), _said)

        self.submit(self.front.assistant.plan(node.id), planned)

    def _redo(self, node: NodeView) -> None:
        self.submit(self.front.assistant.redo(), _said)

    def _branch(self, node: NodeView) -> None:
        if not node.is_message:
            self.say("A branch begins at a question or an answer: choose one of those.")
            return
        self.submit(self.front.assistant.branch(node.id), _said)

    def _diff(self, timeline: Timeline, node: NodeView) -> None:
        """What the model said there against now."""
        snapshot = self.snapshot
        if timeline.fingerprint != snapshot.fingerprint:
            self.say("That session was made with another model: they cannot be compared.")
            return
        self.front.show_comparison(f"@{timeline.session}/{node.id}")

    # -- on a session ------------------------------------------------------------------------

    def _look_session(self, session: str) -> None:
        self.action_other()

    def _open_session(self, session: str) -> None:
        self.submit(self.front.assistant.open(session), self._opened)

    def _opened(self, moved: Moved) -> None:
        self.dismiss()

    def _rename_session(self, session: str) -> None:
        def named(title: str | None) -> None:
            if title is None:
                return
            assistant = self.front.assistant
            here = session == self.snapshot.session_id
            job = assistant.rename(title) if here else assistant.archive.rename(session, title)
            self.submit(job, lambda _: self.changed())

        self.app.push_screen(AskLine("Rename the session", self._title(session)), named)

    def _title(self, session: str) -> str:
        """What it is called, "" where it has no name; also before its timeline was read."""
        shown = self.lines.timeline
        if shown is not None and shown.session == session:
            return shown.title
        return self.session_list.titles.get(session, "")

    def _delete_session(self, session: str) -> None:
        if session == self.snapshot.session_id:
            self.say("This session is in use: open another one, then delete it.", "warning")
            return

        def decided(yes: bool | None) -> None:
            if yes:
                self.submit(self.front.assistant.archive.delete(session), deleted)

        def deleted(_: str) -> None:
            self.say("The session is deleted.")
            self._looking = ""
            self.changed()

        name = self._title(session) or short(session)
        lines = [
            f"Delete session {name}: its messages, its edits and their files.",
            "This cannot be undone. Export it first if it may be needed.",
        ]
        self.app.push_screen(Confirm("Delete", lines, yes="Delete", danger=True), decided)

    def _export_session(self, session: str) -> None:
        path = Path.cwd() / file_name(self._title(session), short(session))

        def named(text: str | None) -> None:
            if text is not None:
                self.submit(self.front.assistant.archive.export(session, Path(text)), written)

        def written(path: Path) -> None:
            self.say(f"Written: {path}")

        hint = "A bundle: messages, edits and their tensors, for this machine or another."
        self.app.push_screen(AskLine("Export the session", str(path), hint=hint), named)


def _said(_: object) -> None:
    """Nothing to add: what came of it is said to the conversation, and shown here too."""
