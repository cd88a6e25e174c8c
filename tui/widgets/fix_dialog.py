"""Correct an answer: what was asked, what the model said, what it should say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Select, Static

from engine.errors import BadRequest
from engine.methods import MethodInfo
from engine.requests import Request

from ..narrate import count, size
from ..texts import clip, visible
from ..views import Proposal, TurnView
from ..weighing import Preview, Weighed

CHECKS = "rephrasings, neighbours, fluency"


@dataclass(frozen=True)
class Fix:
    """What was decided in the dialog. `subject` is None for a method that needs none."""

    turn: TurnView
    target: str
    subject: str | None
    method: str
    probes: bool = True  # measure what else changes


def problem(turn: TurnView, target: str, subject: str, needs_subject: bool) -> str:
    """Why this cannot be applied, in a sentence; "" when it can."""
    if needs_subject and target.strip() and not subject.strip():
        return "Copy from the question what the fact is about."
    request = Request(
        prompt=turn.question,
        target_new=target,
        target_old=turn.answer,
        subject=subject if needs_subject else None,
        chat=True,
    )
    try:
        request.check()
    except BadRequest as error:
        if not target.strip():
            return "Type the answer that the model should give."
        if target.strip() == turn.answer.strip():
            return "That is what the model says already."
        if subject and subject.strip() not in turn.question:
            return f"“{clip(subject, 24)}” is not in the question."
        return error.message[:1].upper() + error.message[1:]
    return ""


def target_text(found: Weighed | None) -> str:
    """The tokens of the answer, and what about the first of them is worth knowing."""
    if found is None:
        return ""
    pieces = "·".join(visible(piece).strip() or "␣" for piece in found.pieces)
    text = f"{count(len(found.pieces), 'token')}: {clip(pieces, 40)}"
    if found.shares:
        text += "\n! The old answer begins with the same token: P(old) cannot fall below P(new)."
    if found.inner:
        inside = f"“{visible(found.inner)}”"
        text += f"\n! Inside a sentence another token begins it ({inside}); this edits the start."
    return text


def cost_text(found: Weighed | None) -> str:
    """From what was measured here; nothing is guessed."""
    if found is None:
        return ""
    free = f"{size(found.free)} free"
    if not found.measured:
        return f"no edit by {found.method} measured here yet · {free}"
    text = f"about {found.seconds:.1f} s"
    if found.memory:
        text += f", +{size(found.memory)} ({'fits' if found.fits else 'too much'}: {free})"
    return f"{text}, from {count(found.measured, 'edit')}"


def preview_text(found: Preview) -> Text:
    """What the checks answer now, to stand against what they answer afterwards."""
    text = Text("Before the edit", "bold")
    for kind, question, answer in found.rows:
        text.append(f"\n· {visible(question)}", "dim" if kind == "neighbour" else "")
        text.append(f" → {clip(answer, 60) or '(nothing)'}", "not dim")
    if not math.isnan(found.perplexity):
        text.append(f"\n· perplexity of fixed prose {found.perplexity:.2f}", "dim")
    return text


def marked(question: str, subject: str) -> Text:
    """The question with the subject in brackets (and bold), where it occurs once."""
    subject = subject.strip()
    if not subject or question.count(subject) != 1:
        return Text(question)
    before, after = question.split(subject)
    return Text.assemble(before, ("[" + subject + "]", "bold"), after)


class FixDialog(ModalScreen["Fix | None"]):
    """Ends with a Fix, or with None when it was cancelled."""

    HELP = """Write the answer that the model should give: short, as it should be said. About
    is the part of the question that the fact is about; ↑ and ↓ in it go through the suggestions.
    Enter applies, Esc leaves everything as it is."""
    BINDINGS: ClassVar = [
        Binding("escape", "leave", "Cancel"),
        Binding("f1", "app.help", "Help", show=False),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012

    def __init__(
        self,
        turn: TurnView,
        methods: Sequence[MethodInfo],
        method: str,
        *,
        target: str = "",
        later: int = 0,
        weigh: Callable[[str, str], object] = lambda target, method: None,
        preview: Callable[[str, str | None], object] = lambda target, subject: None,
    ) -> None:
        """`later`: how many turns follow this one.

        weigh    asked with (target, method) when they change; `weighed` is told what came of it
        preview  asked with (target, subject); `previewed` is told
        """
        super().__init__()
        self._weigh = weigh
        self._preview = preview
        self._found: Weighed | None = None
        self._wanted = ("", "")  # the target and method that were weighed last
        self._previewing = False
        self.later = later
        self.turn = turn
        self.methods = {choice.name: choice for choice in methods}
        self.method = method if method in self.methods else next(iter(self.methods))
        self._target = target
        self.subjects: list[str] = []
        self._searching = True
        self._typed = False  # the subject was typed by hand: keep it
        self._trouble = ""  # why nothing is proposed
        self._ready = False  # the fields are there

    def compose(self) -> ComposeResult:
        names = [(name, name) for name in self.methods]
        with Vertical(id="fix"):
            with VerticalScroll(id="fix-fields", can_focus=False):
                yield from self._row("Question", Static("", id="fix-question", markup=False))
                yield from self._row("It says", Static("", id="fix-answer", markup=False))
                yield Static("", id="fix-later", markup=False)
                yield from self._row(
                    "Correct",
                    Input(self._target, id="fix-target", placeholder="the right answer"),
                )
                yield from self._row("", Static("", id="fix-tokens", markup=False))
                yield from self._row("About", Input(id="fix-subject"))
                yield from self._row("", Static("", id="fix-hint", markup=False))
                yield from self._row(
                    "Method",
                    Select(names, value=self.method, allow_blank=False, id="fix-method"),
                )
                yield from self._row("", Static("", id="fix-summary", markup=False))
                yield from self._row(
                    "Checks",
                    Checkbox(CHECKS, True, id="fix-checks", compact=True),
                )
                yield from self._row("Cost", Static("", id="fix-cost", markup=False))
                yield Static("", id="fix-preview", markup=False)
            with Horizontal(id="fix-buttons"):
                yield Static("", id="fix-reason", markup=False)
                yield Button("Preview", id="fix-ask", compact=True)
                yield Button("Apply", id="fix-apply", variant="primary", compact=True)
                yield Button("Cancel", id="fix-cancel", compact=True)

    def _row(self, label: str, field: Widget) -> ComposeResult:
        flat = isinstance(field, (Static, Checkbox))
        with Horizontal(classes="fix-row" if flat else "fix-row -field"):
            yield Static(label, classes="fix-label", markup=False)
            yield field

    def on_mount(self) -> None:
        box = self.query_one("#fix")
        box.border_title = "Correct an answer"
        box.border_subtitle = "Enter applies · Esc cancels"
        answer = self.turn.answer.strip()
        self.query_one("#fix-answer", Static).update(clip(answer, 240) or "(nothing)")
        which = "later question" if self.later == 1 else f"{self.later} later questions"
        branch = f"The {which} will leave the conversation; undo brings it back."
        self.query_one("#fix-later", Static).update(branch if self.later else "")
        self.query_one("#fix-preview").display = False
        self.query_one("#fix-target").focus()
        self._ready = True
        self._fill()

    # -- what the engine proposes ------------------------------------------------------------

    def propose(self, proposal: Proposal | None, trouble: str = "") -> None:
        """Fill in the subject, unless one was typed meanwhile. None: nothing was found."""
        self._searching = False
        self.subjects = [text for text, _ in proposal.subjects] if proposal else []
        self._trouble = trouble
        if self._ready:
            self._fill()

    def _fill(self) -> None:
        field = self.query_one("#fix-subject", Input)
        if self.subjects and not self._typed:
            with self.prevent(Input.Changed):
                field.value = self.subjects[0]
        self._update()

    def on_key(self, event) -> None:  # type: ignore[no-untyped-def]
        """In the subject, up and down go through the candidates."""
        field = self.query_one("#fix-subject", Input)
        if event.key not in ("up", "down") or not field.has_focus or not self.subjects:
            return
        event.stop()
        step = 1 if event.key == "down" else -1
        known = field.value.strip() in self.subjects
        place = self.subjects.index(field.value.strip()) + step if known else 0
        field.value = self.subjects[place % len(self.subjects)]
        field.cursor_position = len(field.value)

    def weighed(self, found: Weighed | None) -> None:
        """What is known of the target; None when it could not be found out."""
        self._found = found
        self._update()

    def previewed(self, found: Preview | None, trouble: str = "") -> None:
        """What the checks answer before the edit, or why that is not known."""
        self._previewing = False
        shown = preview_text(found) if found else Text(trouble or "Stopped.")
        field = self.query_one("#fix-preview", Static)
        field.update(shown)
        field.display = True
        self._update()
        self.call_after_refresh(field.scroll_visible, top=True, animate=False)

    # -- validation --------------------------------------------------------------------------

    @property
    def choice(self) -> MethodInfo:
        return self.methods[self.method]

    def reason(self) -> str:
        """Why Apply is disabled; "" when it is not."""
        subject = self.query_one("#fix-subject", Input).value
        target = self.query_one("#fix-target", Input).value
        if self._searching and self.choice.needs_subject and target.strip() and not subject:
            return "Looking for what the fact is about …"
        return problem(self.turn, target, subject, self.choice.needs_subject) or self._unfit()

    def _unfit(self) -> str:
        """What the weighing says against it."""
        found = self._found
        if found is None or (found.target, found.method) != self._wanted:
            return ""
        if getattr(self.choice, "single_token", False) and len(found.pieces) > 1:
            return f"{self.choice.name} takes one token: this answer has {len(found.pieces)}."
        if not found.fits:
            return f"It took {size(found.memory)} before: {size(found.free)} are free."
        return ""

    def _update(self) -> None:
        subject = self.query_one("#fix-subject", Input)
        subject.disabled = not self.choice.needs_subject
        subject.placeholder = "" if subject.disabled else "part of the question"
        shown = subject.value if self.choice.needs_subject else ""
        question = marked(visible(self.turn.question), visible(shown))
        self.query_one("#fix-question", Static).update(question)
        self.query_one("#fix-hint", Static).update(self._trouble or self._hint())
        self.query_one("#fix-summary", Static).update(self.choice.summary)
        self._look()
        found = self._found if self._wanted[0] else None
        self.query_one("#fix-tokens", Static).update(target_text(found))
        self.query_one("#fix-cost", Static).update(cost_text(found) or "–")
        reason = self.reason()
        self.query_one("#fix-apply", Button).disabled = bool(reason)
        ask = self.query_one("#fix-ask", Button)
        ask.disabled = bool(reason) or self._previewing
        ask.label = "Asking …" if self._previewing else "Preview"
        self.query_one("#fix-reason", Static).update(f"! {reason}" if reason else "✓ Ready")
        self.query_one("#fix-reason").set_class(not reason, "-ready")

    def _look(self) -> None:
        """Have the target weighed when it, or the method, is another than before."""
        wanted = (self.query_one("#fix-target", Input).value.strip(), self.method)
        if wanted != self._wanted:
            self._wanted = wanted
            if wanted[0]:
                self._weigh(*wanted)

    def _hint(self) -> str:
        if not self.choice.needs_subject:
            return "this method needs no subject"
        if self._searching:
            return "looking for candidates …"
        if not self.subjects:
            return "no suggestion: copy it from the question"
        others = " · ".join(self.subjects[:4])
        return f"↑↓ suggestions: {others}" if len(self.subjects) > 1 else "suggested"

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        self._typed = self._typed or message.input.id == "fix-subject"
        self._update()

    @on(Select.Changed)
    def _chosen(self, message: Select.Changed) -> None:
        if message.value in self.methods:
            self.method = str(message.value)
            self._update()

    @on(Button.Pressed, "#fix-ask")
    def _ask(self) -> None:
        target, subject = self._decision()
        self._previewing = True
        self._update()
        self._preview(target, subject)

    def _decision(self) -> tuple[str, str | None]:
        """Target and subject as they stand; None for a method that needs no subject."""
        subject = self.query_one("#fix-subject", Input).value.strip()
        target = self.query_one("#fix-target", Input).value.strip()
        return target, subject if self.choice.needs_subject else None

    # -- the end -----------------------------------------------------------------------------

    @on(Input.Submitted)
    @on(Button.Pressed, "#fix-apply")
    def _apply(self) -> None:
        reason = self.reason()
        if reason:
            self._update()
            return
        target, subject = self._decision()
        checks = self.query_one("#fix-checks", Checkbox).value
        self.dismiss(Fix(self.turn, target, subject, self.choice.name, checks))

    @on(Button.Pressed, "#fix-cancel")
    def action_leave(self) -> None:
        self.dismiss(None)
