"""A screen beside the conversation: history, comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.screen import Screen
from textual.widgets import Static

from engine.events import Event, Problem
from engine.worker import Job

from ..views import Snapshot
from ..widgets.bound import shared
from ..widgets.key_bar import Bar, KeyBar
from ..widgets.status_bar import StatusBar
from .panes import PanesScreen

if TYPE_CHECKING:
    from ..app import EditApp


class SideScreen(Screen[None]):
    """Follows its own jobs; has the status line at the top and its keys at the bottom."""

    # Two lists side by side need more room than a conversation does.
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-tiny"), (40, "-small"), (76, "-narrow"), (110, "-wide"),
    ]  # fmt: skip
    VERTICAL_BREAKPOINTS = PanesScreen.VERTICAL_BREAKPOINTS
    BINDINGS: ClassVar = shared("stop", "undo", "redo", "history", "compare")

    def __init__(self) -> None:
        super().__init__()
        self._followed: dict[str, Callable[[Any], None]] = {}
        self._small = Static("This window is too small for this screen.", id="too-small")

    @property
    def front(self) -> EditApp:
        return self.app  # type: ignore[return-value]

    @property
    def snapshot(self) -> Snapshot:
        return self.front.assistant.snapshot()

    def show(self, snapshot: Snapshot, activity: str) -> None:
        """The status line, from the state and what the engine does."""
        self.query_one(StatusBar).show(snapshot, activity)
        self.query_one(KeyBar).show_bar(self.bar())

    def bar(self) -> Bar:
        """The keys that matter where the focus is."""
        return ()

    # -- jobs --------------------------------------------------------------------------------

    def submit(self, job: Job[Any], done: Callable[[Any], None]) -> Job[Any]:
        """Follow a job; `done` is given its result. What goes wrong is said in a notice."""
        self._followed[job.id] = done
        return self.front.submit(job)

    def heard(self, job: Job[Any], events: Sequence[Event]) -> None:
        """A job of this screen has said something and goes on."""

    def ended(self, job: Job[Any]) -> None:
        """Any job has ended; those of this screen are acted on."""
        done = self._followed.pop(job.id, None)
        if done is None:
            return
        problem = next((e for e in job.events if isinstance(e, Problem)), None)
        if problem is not None:
            self.failed(job, problem)
        elif job.state == "done":
            done(job.result)

    def failed(self, job: Job[Any], problem: Problem) -> None:
        self.say(f"{problem.message} {problem.remedy}".strip(), "error")

    def owns(self, job: Job[Any]) -> bool:
        return job.id in self._followed

    def changed(self) -> None:
        """The conversation, or what is recorded of it, has changed."""

    def say(self, text: str, severity: str = "information") -> None:
        """A notice; its text is never read as markup."""
        self.notify(text, severity=severity, markup=False)  # type: ignore[arg-type]

    # -- keys --------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Stop the work; else back to the conversation."""
        if not self.front.stop_work():
            self.dismiss()
