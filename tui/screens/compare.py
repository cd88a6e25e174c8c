"""Compare: the same prompts asked of two states of the model, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Select, Static

from engine.events import Event, Problem
from engine.worker import Job

from ..compare import CompareView
from ..comparison_text import verdict
from ..states import NOW, UNEDITED, StateView
from ..widgets.bound import bindings
from ..widgets.comparison_rows import ComparisonRows
from ..widgets.key_bar import Bar, KeyBar
from ..widgets.next_tokens import NextTokens
from ..widgets.status_bar import StatusBar
from .side import SideScreen

BAR: Bar = (
    ("compare.a compare.b", "states"), ("compare.swap", "swap"), ("compare.type", "your prompt"),
    ("compare.tokens", "tokens"), ("compare.remove", "remove"), ("stop", "back"), ("help", "help"),
)  # fmt: skip
TYPING: Bar = (("stop", "to the rows"),)


SOMEWHERE = "the chosen place"  # until the engine has said which it is


class CompareScreen(SideScreen):
    """Two states, chosen above; rows of prompts; next tokens of the chosen row."""

    CSS_PATH = "compare.tcss"
    HELP = """The same prompts in two states of the model. −word is only in A, +word only in B.
        Enter in the field at the bottom asks both."""
    PLACE = "compare"
    BINDINGS: ClassVar = bindings("compare")

    def __init__(
        self,
        memory: Callable[[], int],
        a: str = UNEDITED,
        b: str = NOW,
        prompts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._memory = memory
        self.refs = {"a": a, "b": b}
        self.free = list(prompts)
        self.job: Job[CompareView] | None = None
        self._asked: tuple[Any, ...] = ()  # what the shown comparison was asked of
        self._labels = {UNEDITED: "the unedited model", NOW: "now"}

    def compose(self) -> ComposeResult:
        yield StatusBar(self._memory, id="status")
        with Horizontal(id="compare-states"):
            for side in "ab":
                yield Static(side.upper(), classes="compare-side", markup=False)
                ref = self.refs[side]
                label = self._labels.get(ref, SOMEWHERE)
                yield Select([(label, ref)], value=ref, allow_blank=False, id=f"state-{side}")
        with Horizontal(id="compare-main"):
            yield ComparisonRows(id="compare-rows")
            yield NextTokens(id="compare-tokens")
        yield Input(placeholder="/ type a prompt to ask of both", id="compare-prompt")
        yield KeyBar(BAR, id="keys")
        yield self._small

    def on_mount(self) -> None:
        self.rows.border_title = "Compare"
        self.query_one(NextTokens).border_title = "Next tokens"
        self.rows.focus()
        self.changed()

    @property
    def rows(self) -> ComparisonRows:
        return self.query_one(ComparisonRows)

    def bar(self) -> Bar:
        return TYPING if isinstance(self.focused, Input) else BAR

    # -- states ------------------------------------------------------------------------------

    def changed(self) -> None:
        """The edits are not what they were: read the states anew and ask again."""
        self._asked = ()
        self.submit(self.front.assistant.states(), self._offer)

    def choose(self, a: str, b: str, prompts: Sequence[str] = ()) -> None:
        """Compare these, and ask these prompts too."""
        self.refs = {"a": a, "b": b}
        self.free += [text for text in prompts if text not in self.free]
        self.changed()

    def _offer(self, states: Sequence[StateView]) -> None:
        self._labels |= {state.ref: state.label for state in states}
        offered = [state.ref for state in states]
        for side in "ab":
            if self.refs[side] not in offered:  # a place that was chosen in the timeline
                offered.append(self.refs[side])
        self._fill(offered)
        self.action_run()

    def _fill(self, refs: Sequence[str]) -> None:
        options = [(self._labels.get(ref, SOMEWHERE), ref) for ref in refs]
        for side in "ab":
            picker = self.query_one(f"#state-{side}", Select)
            with self.prevent(Select.Changed):
                picker.set_options(options)
                picker.value = self.refs[side]

    @on(Select.Changed)
    def _picked(self, message: Select.Changed) -> None:
        message.stop()
        side = (message.select.id or "")[-1]
        if isinstance(message.value, str) and message.value != self.refs[side]:
            self.refs[side] = message.value
            self.rows.focus()
            self.action_run()

    # -- asking ------------------------------------------------------------------------------

    def action_run(self) -> None:
        """Ask both states, unless that has just been done."""
        asked = (self.refs["a"], self.refs["b"], tuple(self.free))
        if asked == self._asked and self.job is not None and self.job.state != "cancelled":
            return
        if self.job is not None:
            self.job.cancel()
        self._asked = asked
        self.job = self.front.assistant.compare(*asked)
        self.submit(self.job, lambda _: None)

    def heard(self, job: Job[Any], events: Sequence[Event]) -> None:
        if job is self.job and job.result is not None:
            self._draw(job.result)

    def ended(self, job: Job[Any]) -> None:
        super().ended(job)
        if job is self.job and job.result is not None:
            self._draw(job.result, stopped=job.state == "cancelled")

    def failed(self, job: Job[Any], problem: Problem) -> None:
        super().failed(job, problem)
        if job is self.job:
            self.rows.show(None)
            self.rows.border_subtitle = "could not be compared"

    def _draw(self, view: CompareView, *, stopped: bool = False) -> None:
        rows = self.rows
        if not {view.a.ref: view.a.label, view.b.ref: view.b.label}.items() <= self._labels.items():
            self._labels |= {view.a.ref: view.a.label, view.b.ref: view.b.label}
            offered = dict.fromkeys([*self._labels])
            self._fill(list(offered))
        rows.show(view)
        rows.border_subtitle = _summary(view, stopped)
        self.query_one(NextTokens).show(rows.chosen)

    @on(ComparisonRows.Moved)
    def _moved(self) -> None:
        self.query_one(NextTokens).show(self.rows.chosen)

    # -- keys --------------------------------------------------------------------------------

    def action_pick(self, side: str) -> None:
        picker = self.query_one(f"#state-{side}", Select)
        picker.focus()
        picker.action_show_overlay()

    def action_swap(self) -> None:
        self.refs = {"a": self.refs["b"], "b": self.refs["a"]}
        self._fill(list(dict.fromkeys([*self._labels, *self.refs.values()])))
        self.action_run()

    def action_type(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _typed(self, message: Input.Submitted) -> None:
        message.stop()
        text = message.value.strip()
        message.input.value = ""
        if text and text not in self.free:
            self.free.append(text)
            self.action_run()
        self.rows.focus()

    def action_remove(self) -> None:
        row = self.rows.chosen
        if row is None or row.prompt.kind != "free":
            self.say("Only a prompt that was typed here can be taken away.")
            return
        self.free.remove(row.prompt.text)
        self.action_run()

    @on(ComparisonRows.Opened)
    def action_tokens(self) -> None:
        """Where there is no room for both: next tokens in place of the rows, and back."""
        self.toggle_class("-tokens")
        self.rows.focus()

    def action_row(self, step: int) -> None:
        """The row above or below, while the next tokens stand in the rows' place."""
        rows = self.rows
        if rows.highlighted is not None and 0 <= rows.highlighted + step < rows.option_count:
            rows.highlighted += step

    def action_stop(self) -> None:
        """Stop the work; out of the field; back: in this order."""
        if self.job is not None and not self.job.ended and not self.job.cancelling:
            self.job.cancel()
            return
        if self.has_class("-tokens"):
            self.action_tokens()
        elif self.focused is not self.rows:
            self.rows.focus()
        else:
            self.dismiss()


def _summary(view: CompareView, stopped: bool) -> str:
    """How many answers differ; what is missing."""
    if not view.rows:
        return "no edit tells them apart: / asks something of yours"
    whole = [row for row in view.rows if row.a is not None and row.b is not None]
    differ = sum(1 for row in whole if not verdict(row).startswith("="))
    text = f"{differ} of {len(whole)} differ"
    if view.same_edits:
        text = "A and B are the same state"
    if len(whole) < len(view.rows):
        text += f" · {len(view.rows) - len(whole)} " + (
            "not asked: stopped" if stopped else "to go"
        )
    return text
