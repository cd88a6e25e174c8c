"""The plain front end: a prompt on a terminal, or one line after the other from a pipe.

No colours, no spinner, no cursor tricks: everything is a line, in the order it happened, and
stays in the terminal's own scrollback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from engine.errors import BadInput
from engine.events import Event, Problem, Token
from engine.worker import Job

from . import clipboard, comparison_text, timeline_text
from .assistant import Assistant
from .batch import NO_BATCH, Batch
from .commands import REGISTRY
from .compare import CompareView
from .console import Narrator, follow, printable, problem_of, table
from .narrate import narrate
from .prompt import DumbPrompt, Prompt, Reading, dumb
from .timeline_text import moved_sentence
from .tree import Timeline
from .views import CorrectionView, Moved, ReplyView, UndoView
from .wording import DONE, named, remaining, shifted, superseding

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession


class PlainFront:
    """Carries out lines; what commands may ask of a front end (`registry.Front`).

    out     data: answers, verdicts, tables
    err     narration
    ask     asks the person for a line (prompt, default); None when nobody is there: answers are
            then written whole, not as they come
    fresh   every question begins a conversation of its own
    failed  an edit did not take, or a question could not be answered
    """

    def __init__(
        self,
        assistant: Assistant,
        *,
        out: TextIO,
        err: TextIO,
        ask: Callable[[str, str], str] | None = None,
        fresh: bool = False,
    ) -> None:
        self.assistant = assistant
        self.failed = False
        self.done = False
        self._out = out
        self._err = err
        self._ask = ask
        self._fresh = fresh
        self._narrator = Narrator(err)
        self._edit_job: Job[Any] | None = None

    # -- lines -------------------------------------------------------------------------------

    def begin(self) -> Job[Any]:
        """Load the model; the job, ended."""
        return follow(self.assistant.load(), self._narrator)

    def line(self, text: str) -> None:
        """A question or a command."""
        text = text.strip()
        if text.startswith("/"):
            REGISTRY.run_line(self, text)
        elif text:
            self.run(self.assistant.ask(text, fresh=self._fresh))

    # -- what commands may ask ---------------------------------------------------------------

    def say(self, text: str, tone: str = "info") -> None:
        self.failed = self.failed or tone == "bad"
        print(text, file=self._err, flush=True)

    def show(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._put(line)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        for line in table(head, rows):
            self._put(line)

    def run(self, job: Job[Any], done: Callable[[Job[Any]], None] | None = None) -> None:
        writer = _Streamed(self._out) if self._ask is not None and job.kind == "ask" else None
        follow(job, self._narrator, [writer] if writer else [])
        if writer is not None:
            writer.end()
        problem = problem_of(job)
        if problem is not None:
            self.say(f"error: {problem.message} {problem.remedy}".strip(), "bad")
            return
        for event in job.events:
            if isinstance(event, Problem):  # the job did its work, but something is wrong
                print(f"{event.message} {event.remedy}".strip(), file=self._err, flush=True)
        if job.state == "cancelled":
            self._cancelled(job)
            if self._ask is None:  # nobody is there to go on with: the lines end
                raise KeyboardInterrupt
            return
        ending = self._endings.get(job.kind)
        if ending is not None and not (writer and writer.written):
            ending(self, job.result)
        if done is not None:
            done(job)

    def fix(self, target: str, subject: str | None) -> None:
        if not target or (subject is None and self._ask is not None):
            asked = self._asked(target, subject)
            if asked is None:
                return
            target, subject = asked
        self._edit_job = self.assistant.correct(target, subject=subject)
        self.run(self._edit_job)

    def batch(self, batch: Batch | None) -> None:
        """One line for each fact when it is done; Ctrl+C stops the rest."""
        if batch is None:
            raise BadInput(*NO_BATCH)
        while (job := batch.begin_next(self.assistant)) is not None:
            follow(job, self._narrator)
            for row in batch.ended(job):
                self.failed = self.failed or not row.good
                self._put(batch.told(row))
        self._put(batch.summary())
        if batch.stopped and self._ask is None:  # nobody is there to go on with: the lines end
            raise KeyboardInterrupt

    def stop(self) -> bool:
        return False  # a line is only read when nothing runs; Ctrl+C stops

    def copy(self, text: str) -> None:
        if not self._out.isatty():
            self._put(text)
            return
        self.say(clipboard.copy(text, self._out.write).sentence)
        self._out.flush()

    def show_log(self) -> None:
        if self._edit_job is None:
            self.say("Nothing was edited since this began.", "muted")
            return
        for event in self._edit_job.events:
            for line in narrate(event):
                self._put(line)

    def show_history(self) -> None:
        session = self.assistant.snapshot().session_id
        if session:
            self.run(self.assistant.archive.timeline(session))
        else:
            self.say("Nothing was said in this session yet.", "muted")

    def compare(self, a: str, b: str, prompts: Sequence[str]) -> None:
        self.run(self.assistant.compare(a, b, prompts))

    def quit(self) -> None:
        self.done = True

    # -- how jobs end ------------------------------------------------------------------------

    def _answered(self, reply: ReplyView) -> None:
        self._put(reply.turn.answer)

    def _corrected(self, view: CorrectionView) -> None:
        edit = view.edit
        self.failed = self.failed or not edit.success
        self._put(f"Edit #{edit.number}: {edit.verdict} {superseding(view)}".rstrip())
        if view.turn is not None:
            self._put(view.turn.answer)

    def _moved(self, view: UndoView) -> None:
        done = DONE[view.action].capitalize()
        moved = ", ".join(map(named, view.edits or (view.edit,)))
        sentences = (f"{done}: {moved}.", shifted(view), remaining(view.active))
        self._put(" ".join(filter(None, sentences)))
        if view.answer_now and self._ask is not None:
            self._put(f"The answer is again: {view.answer_now}")

    def _stands(self, moved: Moved) -> None:
        self._put(moved_sentence(moved))

    def _told(self, timeline: Timeline) -> None:
        for line in timeline_text.plain_lines(timeline):
            self._put(line)

    def _compared(self, view: CompareView) -> None:
        for line in comparison_text.plain_lines(view):
            self._put(line)

    _endings: dict[str, Callable[[PlainFront, Any], None]] = {  # noqa: RUF012
        "ask": _answered,
        "correct": _corrected,
        "undo": _moved,
        "redo": _moved,
        "drop": _moved,
        "branch": _stands,
        "open": _stands,
        "timeline": _told,
        "compare": _compared,
    }

    def _cancelled(self, job: Job[Any]) -> None:
        if job.kind == "correct" and isinstance(job.result, CorrectionView):
            self._corrected(job.result)  # the edit stands; only the new answer was stopped
        elif job.kind == "compare" and isinstance(job.result, CompareView):
            self._compared(job.result)  # as far as it has come
        elif job.kind == "ask":
            self.say("Stopped; what was said is kept.", "muted")
        else:
            self.say("Stopped. Nothing was changed.", "muted")

    def _asked(self, target: str, subject: str | None) -> tuple[str, str | None] | None:
        """Answer and subject from the person; None when there is nobody or nothing is said."""
        if self._ask is None:
            self.say("error: /fix needs the right answer: /fix ANSWER.", "bad")
            return None
        job = follow(self.assistant.propose(), self._narrator)
        if job.result is None:
            problem = problem_of(job)
            self.say(f"error: {problem.message}" if problem else "Stopped.", "muted")
            return None
        proposal = job.result
        try:
            if not target:
                self._put(f"Question: {proposal.question}")
                self._put(f"Answer: {proposal.answer}")
                target = self._ask("Right answer: ", "").strip()
            if target and subject is None:
                subject = self._ask("Subject: ", proposal.subject).strip() or None
        except (KeyboardInterrupt, EOFError):
            target = ""
        if not target:
            self.say("Left as it was.", "muted")
            return None
        return target, subject

    def _put(self, text: str) -> None:
        print(printable(text), file=self._out, flush=True)


class _Streamed:
    """Writes the pieces of an answer as they come."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.written = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Token):
            self.written = True
            print(printable(event.text), end="", file=self._out, flush=True)

    def end(self) -> None:
        if self.written:
            print(file=self._out, flush=True)


# -- from a pipe -------------------------------------------------------------------------------


def run_lines(
    assistant: Assistant,
    lines: Iterable[str],
    *,
    context: bool = False,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """One question or command a line, each question in a fresh context unless `context`.

    Returns the exit code: 1 when an edit failed, the loading's own when that did. Raises
    KeyboardInterrupt when a job was stopped.
    """
    out, err = out or sys.stdout, err or sys.stderr
    front = PlainFront(assistant, out=out, err=err, fresh=not context)
    code = loaded(front.begin(), err)
    if code is not None:
        return code
    for line in lines:
        if line.strip():
            print(printable(f"> {line.strip()}"), file=err, flush=True)
            front.line(line)
        if front.done:
            break
    return 1 if front.failed else 0


def loaded(job: Job[Any], err: TextIO) -> int | None:
    """None when the model is there, else the exit code, the reason said."""
    problem = problem_of(job)
    if problem is not None:
        print(f"error: {problem.message} {problem.remedy}".strip(), file=err, flush=True)
        return problem.exit_code
    return 130 if job.state == "cancelled" else None


# -- on a terminal -----------------------------------------------------------------------------


def run_prompt(
    assistant: Assistant,
    *,
    session: PromptSession[str] | None = None,
    enter_sends: bool = True,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Read lines from a person until they leave. Returns the exit code."""
    out, err = out or sys.stdout, err or sys.stderr
    prompt: Reading = (
        DumbPrompt(err)
        if session is None and dumb()
        else Prompt(assistant, session, enter_sends=enter_sends)
    )
    front = PlainFront(assistant, out=out, err=err, ask=prompt.ask)
    code = loaded(front.begin(), err)
    if code is not None:
        return code
    prompt.remember()
    front.say(_welcome(assistant, prompt.keys), "muted")
    for line in prompt.lines(lambda text: front.say(text, "muted")):
        front.line(line)
        if front.done:
            break
    return 0


def _welcome(assistant: Assistant, keys: str) -> str:
    s = assistant.snapshot()
    return (
        f"{s.model}, {s.dtype} on {s.device}. Ask something; /fix ANSWER corrects, /undo takes it "
        f"back, /help lists the rest. {keys} what was written before, Ctrl+C stops, Ctrl+D leaves."
    )
