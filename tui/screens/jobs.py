"""What the screen does with the events of each kind of job.

One function for each kind, looked up by the job's kind; a kind without one only logs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.events import EditPlanned, Event, JobEnded, Loading, Note, Problem, Token
from engine.ledger import RESOLVED
from engine.worker import Job

from ..edit_state import EditState, stage_text
from ..narrate import narrate
from ..timeline_text import moved_sentence
from ..views import CorrectionView, Snapshot, UndoView
from ..wording import moved, shifted, superseding

if TYPE_CHECKING:
    from ..app import EditApp

STOPPABLE = frozenset({"ask", "correct", "undo", "undo_to", "redo", "drop", "why", "compare"})
QUIET = frozenset(
    {"propose", "weigh", "preview", "idle", "history"}
)  # their troubles are said elsewhere, or only logged
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PATIENCE = 3.0  # seconds after which the activity says how long it has taken
MOVES = frozenset({"undo_to", "branch", "open"})  # to another conversation, or part of it
CHANGES = MOVES | {
    "recall", "load", "ask", "correct", "undo", "redo", "drop", "rename", "forget", "remember"
}  # fmt: skip


def take(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    """Show what a job has said since the last look."""
    for event in events:
        for line in narrate(event):
            app.chat.log_pane.say(line)
    handler = HANDLERS.get(job.kind)
    if handler is not None:
        handler(app, job, events)
    for screen in app.sides:
        screen.heard(job, events)
    if isinstance(events[-1], JobEnded) and not app.leaving:
        _ended(app, job)


def activity(jobs: list[Job[Any]], now: float, frame: int) -> str:
    """What the engine does now, in a few words; "" when nothing.

    now    seconds, by the worker's clock: what takes long says how long
    frame  of the sign that moves while something runs
    """
    running = [job for job in jobs if job.state == "running" and job.kind != "idle"]
    waiting = [job.kind for job in jobs if job.state == "queued" and job.kind in VERBS]
    if not running:
        return _idle_activity(jobs)
    job = running[0]
    verb = VERBS.get(job.kind, job.kind)
    last = job.events[-1] if job.events else None
    text = stage_text(last) if isinstance(last, Loading) else verb
    if job.cancelling:
        text = "stopping"
    seconds = now - job.started if job.started else 0.0
    text += f" · {seconds:.0f} s" if seconds >= PATIENCE else ""
    return f"{SPINNER[frame % len(SPINNER)]} {text}{_waiting(waiting)}"


def _waiting(kinds: list[str]) -> str:
    """What is done after the running work: what was asked for with a key, by its name."""
    moves = [PRESSED[kind] for kind in kinds if kind in PRESSED]
    others = len(kinds) - len(moves)
    told = [" and ".join(dict.fromkeys(moves)) + " waiting for it"] if moves else []
    told += [f"+{others} waiting"] if others else []
    return f" ({', '.join(told)})" if told else ""


def _idle_activity(jobs: list[Job[Any]]) -> str:
    """Work between the jobs, with how far it is."""
    for job in jobs:
        last = job.events[-1] if job.events else None
        if job.kind == "idle" and isinstance(last, Loading) and last.done < last.total:
            return f"preparing {100 * last.done / last.total:.0f} %"
    return ""


PRESSED = {"undo": "undo", "undo_to": "undo", "drop": "undo", "redo": "redo"}
VERBS = {
    "recall": "opening",
    "load": "loading",
    "ask": "answering",
    "correct": "editing",
    "propose": "finding the subject",
    "preview": "asking the checks",
    "undo": "undoing",
    "redo": "redoing",
    "drop": "undoing",
    "why": "weighing the edits",
    "undo_to": "undoing",
    "plan": "planning the undo",
    "branch": "branching",
    "open": "opening",
    "compare": "comparing",
}


def _ask(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    said = "".join(e.text for e in events if isinstance(e, Token))
    if said:
        app.chat.transcript.asking_again(job.id, len(app.chat.transcript.turns) - 1)  # a retry
        app.chat.transcript.stream(job.id, said)


def _correct(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    for event in events:
        if isinstance(event, EditPlanned) and event.method == RESOLVED:
            app.corrections.solving(job, event)
    if app.corrections.job is job:
        app.chat.take_edit(events)
    said = "".join(e.text for e in events if isinstance(e, Token))
    place = app.corrections.places.get(job.id)
    if said and place is not None:  # the question, asked again after the edit
        app.chat.transcript.asking_again(job.id, place)
        app.chat.transcript.stream(job.id, said)


def _propose(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    if isinstance(events[-1], JobEnded):
        app.corrections.proposed(job)


def _asked(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    """What the dialog wanted to know."""
    if isinstance(events[-1], JobEnded):
        app.corrections.answered(job)


def _recall(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    """What is to be told stands below what was said before, where it is seen."""
    if isinstance(events[-1], JobEnded):
        if any(isinstance(event, Note) for event in job.events):
            app.chat.sync(app.assistant.snapshot())
        _load(app, job, job.events)


def _load(app: EditApp, job: Job[Any], events: list[Event]) -> None:
    for event in events:
        if isinstance(event, Note):
            app.say(event.text)
    if isinstance(events[-1], JobEnded) and job.state == "failed":
        app.give_up(next(e for e in job.events if isinstance(e, Problem)))


def _ended(app: EditApp, job: Job[Any]) -> None:
    """The last thing of a job: the state it left, and a sentence where one is due."""
    snapshot = app.assistant.snapshot()
    owned = any(screen.owns(job) for screen in app.sides)
    app.chat.transcript.finish(job.id)
    if job.kind == "correct" and app.corrections.job is job and app.chat.edit is not None:
        app.chat.edit.stands = job.result is not None
        app.chat.edit.number = _number(app.chat.edit, snapshot)
        app.chat.draw_edit()
    if job.kind in MOVES and job.result is not None:
        app.chat.moved(len(snapshot.turns), other=job.kind == "open")
    if job.kind in CHANGES:
        app.chat.sync(snapshot)
    for screen in app.sides:
        screen.ended(job)
        if job.kind in CHANGES:
            screen.changed()
    if app.batches.owns(job):
        app.batches.ended(job)
        return
    if job.kind not in QUIET and not owned:
        for problem in (e for e in job.events if isinstance(e, Problem)):
            app.say(f"{problem.message} {problem.remedy}".strip(), "bad")
    say = ENDINGS.get(job.kind)
    if say is not None and job.result is not None:
        say(app, job)
    elif job.state == "cancelled" and job.kind == "correct":
        app.say("The edit was stopped. Nothing was changed.")
    done = app.followups.pop(job.id, None)
    if done is not None and job.state == "done":
        done(job)


def _number(edit: EditState, snapshot: Snapshot) -> int:
    """Its own; 0 for one that ended before it was planned: the session has none for it."""
    id = edit.planned.edit if edit.planned else ""
    return next((view.number for view in snapshot.edits if view.id == id), 0)


def _corrected(app: EditApp, job: Job[Any]) -> None:
    view: CorrectionView = job.result  # type: ignore[assignment]
    edit = view.edit
    shown = app.chat.edit if app.corrections.job is job else None
    tone = shown.verdict()[0] if shown else "good" if edit.success else "bad"
    app.say(f"Edit #{edit.number} · {edit.verdict} {superseding(view)}".rstrip(), tone)


def _moved(app: EditApp, job: Job[Any]) -> None:
    view: UndoView = job.result  # type: ignore[assignment]
    numbers = [edit.number for edit in view.edits or (view.edit,)]
    app.say(moved(view.action, numbers, shifted(view), view.answer_now))


def _stands(app: EditApp, job: Job[Any]) -> None:
    app.say(moved_sentence(job.result))  # type: ignore[arg-type]


def _history(app: EditApp, job: Job[Any]) -> None:
    app.chat.composer.set_history(list(reversed(job.result or [])))


HANDLERS: dict[str, Callable[[EditApp, Job[Any], list[Event]], None]] = {
    "recall": _recall,
    "load": _load,
    "ask": _ask,
    "correct": _correct,
    "propose": _propose,
    "weigh": _asked,
    "preview": _asked,
}

ENDINGS: dict[str, Callable[[EditApp, Job[Any]], None]] = {
    "correct": _corrected,
    "undo": _moved,
    "redo": _moved,
    "drop": _moved,
    "undo_to": _stands,
    "branch": _stands,
    "open": _stands,
    "history": _history,
}
