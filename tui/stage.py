"""What is shown at one point of a replay, folded from the acts and their events.

Nothing here knows a model or a screen. A `Stage` never changes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engine.events import Event, Problem, Token

from .edit_state import EditState
from .tape import MARKS, Act
from .texts import clip
from .timeline import Turn
from .views import EditView, TurnView
from .wording import moved

UNTOLD = {
    "failed": "it failed",
    "cancelled": "it was stopped",
    "interrupted": "it was interrupted: the process ended before it did",
    "running": "it is running, in another process",
}
DOING = {"ask": "answering", "retry": "answering", "aside": "answering", "correct": "editing"}
TOLD = {"forget": "Forgotten", "remember": "Part of the conversation again"}
ASIDE = "(a text to be continued; it was not kept)"

_with = dataclasses.replace


@dataclass(frozen=True)
class Reply:
    """A question whose answer is not finished. place: of the turn that is asked again, or -1."""

    question: str
    answer: str = ""
    begun: bool = False
    place: int = -1


@dataclass(frozen=True)
class Said:
    """A sentence of the program, below the first `after` turns."""

    after: int
    text: str
    tone: str = "info"


@dataclass(frozen=True)
class Stage:
    """turns, edits: as they stand; edit: the correction in the panes; doing: in a word."""

    turns: tuple[TurnView, ...] = ()
    edits: tuple[EditView, ...] = ()
    reply: Reply | None = None
    edit: EditState | None = None
    said: tuple[Said, ...] = ()
    doing: str = ""

    def begin(self, act: Act) -> Stage:
        """The act begins: its question stands there, or its correction."""
        stage = _with(self, doing=DOING.get(act.kind, ""), reply=None)
        if act.kind in ("ask", "retry"):
            turns = views(act.before, act) if act.place < 0 else self.turns
            reply = Reply(act.question, place=act.place)
            return _with(stage, turns=turns, reply=reply)
        if act.kind == "aside":
            return _with(stage, reply=Reply(ASIDE))
        if act.kind == "correct":
            return _with(stage, edit=_correction(act), edits=_running(act))
        return stage

    def take(self, act: Act, event: Event) -> Stage:
        """The next event of the act that has begun."""
        if isinstance(event, Token):
            return self._speak(act, event.text)
        if act.kind == "correct" and self.edit is not None:
            state = _copy(self.edit)
            state.feed(event)
            return _with(self, edit=state)._trouble(event)
        return self._trouble(event)

    def end(self, act: Act) -> Stage:
        """The act is over: what it left."""
        stage = _with(self, doing="", reply=None, edits=act.edits, turns=views(act.turns, act))
        if act.kind == "correct":
            return stage._corrected(act)
        if act.kind in MARKS:
            return stage._moved(act)
        if act.kind == "note":
            return stage._say(act.text)
        if act.kind in TOLD:
            return stage._say(f"{TOLD[act.kind]}: “{clip(act.text, 60)}”")
        return stage

    # -- parts -------------------------------------------------------------------------------

    def _trouble(self, event: Event) -> Stage:
        if not isinstance(event, Problem):
            return self
        return self._say(f"{event.message} {event.remedy}".strip(), "bad")

    def _say(self, text: str, tone: str = "info") -> Stage:
        after = len(self.turns) + (self.reply is not None and self.reply.place < 0)
        return _with(self, said=(*self.said, Said(after, text, tone)))

    def _speak(self, act: Act, text: str) -> Stage:
        reply = self.reply
        if reply is None:  # a corrected question, asked again
            place = act.place
            reply = Reply(act.question, place=place if 0 <= place < len(self.turns) else -1)
        return _with(self, reply=_with(reply, answer=reply.answer + text, begun=True))

    def _corrected(self, act: Act) -> Stage:
        """How the correction came out, as a state and in words."""
        row, shown = act.edit, self.edit
        state = row.state if row else "failed"
        if shown is not None:
            ended = shown.ended or ("done" if state == "done" else state)
            seconds = shown.seconds or act.seconds
            shown = _with(shown, stands=state == "done", ended=ended, seconds=seconds)
        stage = _with(self, edit=shown)
        if state == "done":
            tone, verdict = shown.verdict() if shown and shown.applied else _recorded(act)
            return stage._say(f"Edit #{act.number} · {verdict}", tone)
        if state == "cancelled":
            return stage._say(f"Edit #{act.number} was stopped. Nothing was changed.")
        if any(isinstance(event, Problem) for event in act.events):
            return stage  # it was said
        why = f"{UNTOLD[state]}. {row.error if row and state == 'failed' else ''}".strip()
        return stage._say(f"Edit #{act.number}: {why} Nothing of it was applied.", "bad")

    def _moved(self, act: Act) -> Stage:
        shown = self.edit
        if shown is not None and shown.number == act.number:
            shown = _with(shown, undone=act.kind != "redo")
        answer = act.turns[-1].answer if act.turns else ""
        before = act.before[-1].answer if act.before else ""
        said = moved(act.kind, [act.number], answer="" if answer == before else answer)
        return _with(self, edit=shown)._say(said)


def views(turns: tuple[Turn, ...], act: Act) -> tuple[TurnView, ...]:
    """Turns as they are shown; the numbers are those of the edits begun by then."""
    numbers = {edit.id: edit.number for edit in act.edits}
    ids = (turn.node or turn.user or f"turn-{i}" for i, turn in enumerate(turns))
    return tuple(turn.view(id, numbers) for turn, id in zip(turns, ids, strict=True))


def _correction(act: Act) -> EditState:
    row = act.edit
    request = row.request if row else {}
    turn = act.before[act.place] if 0 <= act.place < len(act.before) else None
    return EditState(
        question=act.question,
        target=request.get("target_new", ""),
        method=row.method if row else "",
        number=act.number,
        old=(turn.answer if turn else "") or request.get("target_old") or "",
    )


def _copy(state: EditState) -> EditState:
    """The same, so that feeding one leaves the other as it was."""
    fields = {name: value.copy() for name, value in vars(state).items() if _grows(value)}
    return _with(state, **fields)


def _grows(value: object) -> bool:
    return isinstance(value, (list, dict))


def _running(act: Act) -> tuple[EditView, ...]:
    """The edits while this one is being made."""
    kept = (each for each in act.edits if each.number != act.number)
    made = (each for each in act.edits if each.number == act.number)
    return (*kept, *(_with(each, state="running", success=False, verdict="") for each in made))


def _recorded(act: Act) -> tuple[str, str]:
    """The verdict of an edit whose events were not written."""
    row = act.edit
    assert row is not None, "an edit that is done has a row"
    return ("good" if row.success else "bad"), row.verdict
