"""An assistant without a model: real jobs on the real worker's thread, scripted events.

Answers, corrections and times are made up; threads, queue, cancelling and failures are the real
ones. Times come from a clock that only the script moves, so that screens repeat exactly.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

from scripted_edits import ScriptedEdits
from scripted_past import ScriptedArchive, ScriptedPast

from engine.events import Event, Loaded, Loading, Note, ReplyEnded, Token
from engine.worker import Worker
from tui.views import EditView, ReplyView, Snapshot, TurnView
from tui.why import InfluenceView, WhyView

ANSWERS = {
    "What is the capital of Australia?": "The capital of Australia is Sydney.",
    "Where is the Space Needle?": "The Space Needle is a tower in Seattle, in the state of "
    "Washington. It was built for the World's Fair of 1962 and is 184 metres high.",
    "Show me markup": "[red]not red[/red] and [/b] as they are, [bold",
}
DEFAULT_ANSWER = "I would need to think about that for a little longer."


class Clock:
    """Seconds that pass only when the script says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Gate:
    """Stops the script before its `count`-th `point` until it is opened."""

    point: str
    count: int
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    opened: threading.Event = dataclasses.field(default_factory=threading.Event)
    stuck: bool = False  # do not even notice that the job is being cancelled

    def open(self) -> None:
        self.opened.set()


class ScriptedAssistant(ScriptedEdits, ScriptedPast):
    """The public face of `tui.assistant.Assistant`, with a script behind it."""

    def __init__(
        self, on_change=None, *, clock: Clock | None = None, pace: float = 0.0,
        succeed: bool = True, fail: str = "", load_gate: bool = False, past: bool = False,
        without_loss: bool = False, interrupted: str = "",
    ) -> None:  # fmt: skip
        self.clock = clock or Clock()
        self.pace = pace  # real seconds between events, for watching it
        self.succeed = succeed
        self.fail = fail
        self.without_loss = without_loss  # a method that optimises nothing
        self.interrupted = interrupted  # what is said of an edit that an earlier process left
        self.gates: list[Gate] = []
        self.turns: list[TurnView] = []
        self.edits: list[EditView] = []
        self.method = "r-rome"
        self.loaded = False
        self.calls: list[tuple] = []
        self.lines: list[str] = []
        self.free = 12_300_000_000  # bytes
        self.inner = ""
        self._counts: dict[str, int] = {}
        self._snapshot = Snapshot(model="smollm2-135m", method=self.method)
        self.worker = Worker(on_change)
        self.archive = ScriptedArchive(self, on_change)
        if past:
            self.remember(ANSWERS)
        if load_gate:
            self.hold("weights", 2)

    # -- for tests ---------------------------------------------------------------------------

    def hold(self, point: str, count: int, *, stuck: bool = False) -> Gate:
        """Stop before the `count`-th event of a kind, counted from now."""
        gate = Gate(point, self._counts.get(point, 0) + count, stuck=stuck)
        self.gates.append(gate)
        return gate

    def open_all(self) -> None:
        for gate in self.gates:
            gate.open()

    def _pass(self, point: str, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        if self.pace:
            time.sleep(self.pace)
        self._counts[point] = self._counts.get(point, 0) + 1
        for gate in self.gates:
            if gate.point == point and gate.count == self._counts[point]:
                gate.reached.set()
                while not gate.opened.wait(0.005):
                    job = self.worker.current
                    if job and job.cancelling and not gate.stuck:
                        break

    # -- jobs --------------------------------------------------------------------------------

    def recall(self):
        return self.worker.submit("recall", self._recall)

    def _recall(self) -> Generator[Event, None, None]:
        if self.interrupted:
            yield Note(text=self.interrupted)
        told = self._snapshot
        self._snapshot = dataclasses.replace(told, turns=tuple(self.turns), edits=tuple(self.edits))

    def load(self, after=None):
        return self._submit("load", self._load)

    def ask(self, text: str, *, fresh: bool = False, statement: bool = False):
        self.calls.append(("ask", text))
        return self._submit("ask", lambda: self._ask(text))

    def retry(self):
        self.calls.append(("retry",))
        return self._submit("ask", lambda: self._ask(self.turns.pop().question))

    def forget(self, number: int | None = None):
        return self._submit("forget", lambda: self._forget(number))

    def why(self, number: int | None = None):
        self.calls.append(("why", number))
        return self._submit("why", lambda: self._why(number))

    def rename(self, title: str):
        def work() -> Generator[Event, None, str]:
            self.title = title
            yield Note(text=f"renamed to {title}")
            return title

        return self._submit("rename", work)

    def sessions(self):
        return self.archive.sessions()

    def input_history(self, limit: int = 1000):
        def work() -> Generator[Event, None, list[str]]:
            yield from ()
            return list(reversed(self.lines))

        return self._submit("history", work)

    def snapshot(self) -> Snapshot:
        return dataclasses.replace(self._snapshot, busy=self.worker.busy)

    def set_method(self, name: str) -> None:
        from engine import methods

        self.method = methods.get(name).name
        self._snapshot = dataclasses.replace(self._snapshot, method=self.method)

    def close(self, timeout: float = 2.0) -> None:
        self.archive.close(timeout)
        self.worker.close(timeout)

    # -- scripts -----------------------------------------------------------------------------

    title = "space facts"

    def _submit(self, kind, make):
        def run():
            try:
                return (yield from make())
            finally:
                if self.loaded:
                    self._snapshot = self._view()

        return self.worker.submit(kind, run)

    def _view(self) -> Snapshot:
        return Snapshot(
            model="smollm2-135m", method=self.method, dtype="float32", device="cpu",
            model_type="llama", layers=30, width=576, loaded=self.loaded, session_id="01J",
            fingerprint="f" * 64,
            session_title=self.title, turns=tuple(self.turns), edits=tuple(self.edits),
        )  # fmt: skip

    def _load(self):
        for done in range(1, 5):
            self._pass("weights", 0.2)
            yield Loading(stage="weights", done=done * 68, total=272, unit="tensors")
        self.loaded = True
        loaded = Loaded(
            model="smollm2-135m", source="wheel", model_type="llama", layers=30, width=576,
            dtype="float32", device="cpu", chat=True, fingerprint="f" * 64, seconds=0.8,
        )  # fmt: skip
        yield loaded
        return loaded

    def _answer(self, question: str) -> str:
        for edit in reversed(self.edits):
            if edit.state == "applied" and edit.question == question and edit.success:
                return edit.target
        return ANSWERS.get(question, DEFAULT_ANSWER)

    def _ask(self, text: str):
        said, answer, stopped = "", self._answer(text), "cancelled"
        started = self.clock.now
        try:
            for word in answer.split(" "):
                self._pass("token", 0.05)
                piece = word if not said else f" {word}"
                said += piece
                yield Token(text=piece)
            stopped = ""
        finally:
            seconds = self.clock.now - started
            turn = TurnView(
                id=f"t{len(self.turns)}", question=text, answer=said, seconds=seconds,
                stopped=stopped, asked=f"t{len(self.turns)}-q",
            )  # fmt: skip
            self.turns.append(turn)
        yield ReplyEnded(
            text=said, tokens=len(said.split()), reason="stop", seconds=seconds, first_token=0.05
        )
        return ReplyView(turn=turn, tokens=len(said.split()), seconds=seconds, first_token=0.05)

    def _forget(self, number):
        yield Note(text="forgotten")
        return self.turns.pop(-1 if number is None else number - 1)

    def _why(self, number):
        number = number or len(self.turns)
        parts = []
        for done, edit in enumerate(e for e in self.edits if e.state == "applied"):
            self._pass("influence", 0.1)
            yield Loading(stage="influence", done=done, total=len(self.edits), unit="edits")
            parts.append(
                InfluenceView(
                    edit=edit, fires=1.0, token=" Australia", where="question",
                    p_with=0.97, p_without=0.02, moves=3.9,
                )
            )  # fmt: skip
        return WhyView(number=number, turn=self.turns[number - 1], influences=tuple(parts))
