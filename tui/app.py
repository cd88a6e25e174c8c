"""The full-screen application: engine, commands and navigation. The screens do the drawing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.events import Problem
from engine.worker import Job

from .feed import Feed, JobChanged
from .front import CommandPalette, ScreenFront
from .full_screen import FullScreen
from .guard import LogTail
from .screens import jobs
from .screens.batches import Batches
from .screens.chat import ChatScreen
from .screens.correction import Corrections
from .screens.side import SideScreen
from .widgets.status_bar import resident_memory

if TYPE_CHECKING:
    from textual.screen import Screen

    from .assistant import Assistant
    from .views import TurnView

TICK = 1 / 8  # seconds between looks at the jobs


class EditApp(FullScreen):
    """Chat with a model, correct it, undo it.

    Screens that are opened by a key are imported by it: the first picture does not wait for them.
    """

    TITLE = "llm-edit"
    COMMANDS: ClassVar = {CommandPalette}

    def __init__(
        self,
        make_assistant: Callable[[Callable[[Job[Any]], None]], Assistant],
        *,
        theme: str = "llm-edit-dark",
        enter_sends: bool = True,
        ascii: bool = False,
        keys: Mapping[str, str] | None = None,
        logs: Sequence[Path] = (),
        memory: Callable[[], int] = resident_memory,
        clock: Callable[[], float] = time.monotonic,
        painted: Callable[[], object] = lambda: None,
    ) -> None:
        """`make_assistant` is given the signal for changed jobs; `logs` are shown as they grow.

        ascii  plots and frames without braille and lines
        keys   by action (see tui/keys.py), where they are not the default ones
        painted  called when the first picture is on the terminal
        """
        super().__init__(theme=theme, ascii=ascii, keys=keys)
        self.feed = Feed()
        self._make_assistant = make_assistant
        self.commands = ScreenFront(self)
        self.corrections = Corrections(self)
        self.batches = Batches(self)
        self.chat = ChatScreen(self.commands.complete, memory, enter_sends)
        self.followups: dict[str, Callable[[Job[Any]], None]] = {}
        self.farewell = ""  # said on the terminal after the screen is gone
        self.begun = False
        self._clock = clock
        self._painted = painted
        self._memory = memory
        self._frame = 0
        self._log_tails = [LogTail(path) for path in logs]
        self._recalled = threading.Event()  # what was said before is on the terminal

    # -- life --------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[Any]:
        return self.chat

    @cached_property
    def assistant(self) -> Assistant:
        """Made when it is first asked for, which is behind the first picture."""
        return self._make_assistant(self._changed)

    def begin(self) -> None:
        """Once the first picture is on the terminal. Only when what was said before is on it,
        too, torch is imported, over there."""
        self.begun = True
        self._painted()
        self.set_interval(TICK, self._tick)
        self.submit(self.assistant.recall(), self._show_recalled)
        self.submit(self.assistant.input_history())
        self.submit(self.assistant.load(self._recalled))

    def _show_recalled(self, job: Job[Any], length: int = -1, steps: int = 10) -> None:
        """It is laid out in steps: it is there when another one made it no longer."""
        said = self.chat.transcript
        if said.scroll_y == said.max_scroll_y == length or not steps:
            self._recalled.set()
        else:
            said.call_after_refresh(self._show_recalled, job, said.max_scroll_y, steps - 1)

    def _changed(self, job: Job[Any]) -> None:
        """On the engine's thread: only signal."""
        self.post_message(JobChanged(job))

    def on_job_changed(self, message: JobChanged) -> None:
        """What was said is drawn at the next tick; what was said before the start, at once."""
        self.feed.add(message.job)
        if message.job.kind == "recall" and message.job.ended:
            self._take()

    def submit(self, job: Job[Any], done: Callable[[Job[Any]], None] | None = None) -> Job[Any]:
        """Follow a job from before its first event; `done` is called when it has succeeded."""
        self.feed.add(job)
        if done is not None:
            self.followups[job.id] = done
        return job

    def _take(self) -> None:
        """Draw what the jobs have said since the last look."""
        for job, events in self.feed.drain():
            if self.leaving:
                return
            jobs.take(self, job, events)

    def _tick(self) -> None:
        """Draw what has happened since the last look, and what goes on."""
        self._take()
        if self.leaving:
            return
        for line in (line for tail in self._log_tails for line in tail.lines()):
            self.chat.log_pane.say(line, "dim")
        self._frame += self.animation_level != "none"
        doing = jobs.activity(self.feed.active, self._clock(), self._frame)
        if self.batches.running:
            doing += f" · {self.batches.running.progress()}"
        snapshot = self.assistant.snapshot()
        self.chat.show(snapshot, doing)
        for screen in self.sides:
            screen.show(snapshot, doing)

    def give_up(self, problem: Problem) -> None:
        """Nothing can be done without a model: leave, with the sentence that helps."""
        self.farewell = f"llm-edit: {problem.message} {problem.remedy}".strip()
        self.exit(problem.exit_code, return_code=problem.exit_code)

    @property
    def leaving(self) -> bool:
        """True from `exit` on: the widgets may be gone."""
        return self._exit or not self.is_running

    # -- talking -----------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """A question, or a command."""
        if text.startswith("/"):
            self.commands.run_line(text)
        else:
            job = self.submit(self.assistant.ask(text))
            self.chat.transcript.begin(job.id, text)

    def say(self, text: str, tone: str = "info", body: Any = None) -> None:
        """A sentence of the program, in the conversation; also where it is not seen."""
        self.chat.transcript.note(text, tone, body)
        if self.sides:
            self.sides[-1].say(text, "error" if tone == "bad" else "information")

    def copy(self, text: str) -> None:
        """To the clipboard, saying what is known about whether it got there."""
        self.copy_to_clipboard(text, lambda done: self.notify(done.sentence))

    def retry(self, turn: TurnView) -> None:
        """Ask the last question again."""
        if turn != self.assistant.snapshot().turns[-1]:
            self.notify("Only the last question can be asked again.")
            return
        self.submit(self.assistant.retry())

    # -- keys --------------------------------------------------------------------------------

    def stop_work(self) -> bool:
        """Cancel the running job; False when there was nothing to stop."""
        for job in self.feed.active:
            if job.kind in jobs.STOPPABLE and not job.cancelling and not job.ended:
                job.cancel()
                return True
        return False

    def action_fix(self) -> None:
        self.corrections.open()

    def action_undo(self) -> None:
        self.submit(self.assistant.undo())

    def action_redo(self) -> None:
        self.submit(self.assistant.redo())

    # -- other screens -----------------------------------------------------------------------

    @property
    def sides(self) -> list[SideScreen]:
        """The screens that stand over the conversation and follow jobs of their own."""
        return [s for s in self.screen_stack if isinstance(s, SideScreen) and s.is_mounted]

    def action_history(self) -> None:
        """There and back; from a comparison that was begun there, back to it."""
        from .screens.history import HistoryScreen

        there = any(isinstance(screen, HistoryScreen) for screen in self.screen_stack)
        if isinstance(self.screen, SideScreen) and there:
            self.screen.dismiss()
        elif not there:
            self.push_screen(HistoryScreen(self._memory))

    def action_compare(self) -> None:
        """There and back."""
        from .screens.compare import CompareScreen

        if isinstance(self.screen, CompareScreen):
            self.screen.dismiss()
        else:
            self.show_comparison()

    def show_comparison(self, a: str = "", b: str = "", prompts: Sequence[str] = ()) -> None:
        """Ask two states the same; in the screen that is open, or in a new one.

        a, b  "" for the unedited model and for the model as it is now
        """
        from .screens.compare import CompareScreen
        from .states import NOW, UNEDITED

        a, b = a or UNEDITED, b or NOW
        screen = self.screen
        if isinstance(screen, CompareScreen):
            screen.choose(a, b, prompts)
        else:
            self.push_screen(CompareScreen(self._memory, a, b, prompts))

    def command_sheet(self) -> Sequence[tuple[str, str]]:
        return self.commands.sheet()

    def idle_keys(self) -> frozenset[str]:
        """Actions that would do nothing now; the key bar greys them."""
        snapshot = self.assistant.snapshot()
        possible = {
            "stop": any(job.kind in jobs.STOPPABLE for job in self.feed.active),
            "app.fix": any(turn.answer for turn in snapshot.turns),
            "app.undo": bool(snapshot.active),
            "details": bool(self.chat.edit and self.chat.edit.metrics),
            "search_history": bool(self.chat.composer.history),
        }
        return frozenset(action for action, yes in possible.items() if not yes)
