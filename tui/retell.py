"""A recording as lines of text and as JSON: replay without a screen. Imports no user interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from engine.events import EditApplied, EditStep, Event, JobEnded, Metric
from sessions.rows import EditRow

from .console import printable
from .edit_state import EditState
from .narrate import count, narrate, number
from .player import Moment, Player, left_out
from .stage import ASIDE, TOLD, Stage
from .tape import Act, Tape


def head(tape: Tape) -> list[str]:
    """What is replayed, in a line or two."""
    session = tape.recording.session
    model = f"{session.model.name} ({session.model.dtype})"
    asked = sum(1 for act in tape.acts if act.kind == "ask")
    edits = len(tape.recording.edits)
    what = f"{count(asked, 'question')}, {count(edits, 'edit')}"
    lines = [f"{session.title or session.short} · {model} · {what} · {session.created[:16]}"]
    if tape.unknown:
        lines.append(f"{count(tape.unknown, 'event')} of a later version cannot be shown.")
    return lines


def lines(player: Player) -> Iterator[tuple[Moment, list[str]]]:
    """Everything in order: each moment that is worth lines, with them."""
    stage = Stage()
    last: Event | None = None
    for position, moment in enumerate(player.moments, start=1):
        act = player.tape.acts[moment.act]
        before = stage
        player.seek(position)
        stage = player.stage()
        found = _steps(stage.edit) if isinstance(last, EditStep) else []
        if isinstance(moment.event, EditStep):
            found = []
        found += _lines(moment, act, before, stage)
        last = moment.event
        if found:
            yield moment, [printable(line) for line in found]


def _lines(moment: Moment, act: Act, before: Stage, after: Stage) -> list[str]:
    event = moment.event
    if moment.kind == "begin":
        return _beginning(act)
    if isinstance(event, Metric):
        return [f"  {narrate(event)[0]}"]
    if isinstance(event, EditApplied):
        return [f"  {event.verdict}"]
    found = []
    if moment.kind == "end" or isinstance(event, JobEnded):
        found += _answered(act)
    told = act.kind == "correct" and any(isinstance(e, EditApplied) for e in act.events)
    fresh = () if told else after.said[len(before.said) :]
    return found + [said.text for said in fresh]


def _beginning(act: Act) -> list[str]:
    rest = left_out(act)
    lines = [f"[{duration(rest)} of waiting left out]"] if rest >= 1 else []
    if act.kind in ("ask", "retry"):
        again = "  [asked again]" if act.kind == "retry" else ""
        lines += ["", f"> {act.question}{again}"]
    elif act.kind == "aside":
        lines += ["", f"> {ASIDE}"]
    elif act.kind == "correct" and act.edit is not None:
        request = act.edit.request
        about = request.get("subject") or act.question
        lines += ["", f"edit #{act.number} ({act.edit.method}): {about} → {request['target_new']}"]
    elif act.kind in TOLD or act.kind == "note":
        lines.append("")
    return lines


def _answered(act: Act) -> list[str]:
    """The answer in full, or what little was said of it."""
    text = act.answer.text if act.answer else ""
    if act.kind == "aside":
        text = next((getattr(e, "text", "") for e in act.events), "")
    if not text:
        return []
    again = f"> {act.question}  [asked again after edit #{act.number}]\n"
    stopped = act.answer.stopped_by if act.answer else ""
    mark = {"cancelled": "  [stopped]", "length": "  [cut off at the token limit]"}.get(stopped, "")
    return [f"{again if act.kind == 'correct' else ''}{text}{mark}"]


def _steps(state: EditState | None) -> list[str]:
    """What became of the loss, once its last step is over."""
    if state is None or not state.steps:
        return []
    first, last = state.steps[0], state.steps[-1]
    return [
        f"  loss {number(first.loss)} → {number(last.loss)}, P(new) {first.p_new:.2f} → "
        f"{last.p_new:.2f} in {count(len(state.steps), 'step')}"
    ]


def duration(seconds: float) -> str:
    """ "12 s", "5 min", "3 h", "2 days"."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 36 * 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return count(round(seconds / 86400), "day")


# -- JSON ---------------------------------------------------------------------------------------


def as_object(player: Player, source: str) -> dict[str, Any]:
    """Everything that is replayed; numbers that do not exist are NaN."""
    tape = player.tape
    session = tape.recording.session
    begins = {m.act: m.at for m in reversed(player.moments) if m.kind == "begin"}
    return {
        "session": session.id,
        "title": session.title,
        "source": source,
        "model": dataclasses.asdict(session.model),
        "method": session.method,
        "created": session.created,
        "seconds": player.length,
        "unknown_events": tape.unknown,
        "acts": [_act(act, begins[index]) for index, act in enumerate(tape.acts)],
        "edits": [_edit(row, n) for n, row in enumerate(tape.recording.edits, start=1)],
        "turns": list(tape.acts[-1].turns) if tape.acts else [],
        "active": list(_active(tape)),
    }


def _active(tape: Tape) -> tuple[str, ...]:
    """The edits in force where the session stands."""
    tip = tape.recording.session.tip
    return tape.recording.states[tip].active if tip else ()


def _act(act: Act, at: float) -> dict[str, Any]:
    return {
        "kind": act.kind,
        "at": at,
        "waited": act.waited,
        "left_out": left_out(act),
        "question": act.question,
        "text": act.text,
        "answer": act.answer.text if act.answer else None,
        "stopped": act.answer.stopped_by if act.answer else "",
        "edit": act.edit.id if act.edit else None,
        "events": [_event(event) for event in act.events],
    }


def _event(event: Event) -> dict[str, Any]:
    return {"kind": event.kind, **vars(event)}


def _edit(row: EditRow, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "id": row.id,
        "method": row.method,
        "state": row.state,
        "error": row.error,
        "request": row.request,
        "hparams": row.hparams,
        "seed": row.seed,
        "device": row.device,
        "before": row.before,
        "after": row.after,
        "success": row.success,
        "verdict": row.verdict,
        "metrics": {m.name: dataclasses.asdict(m) for m in row.metrics},
        "patches": [dataclasses.asdict(p) for p in row.patches],
        "seconds": row.seconds,
        "versions": row.versions,
    }
