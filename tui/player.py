"""Plays a recording: positions, time, seeking. Knows neither models nor screens.

Position n means that the first n moments have been played. Whatever way it was reached, the
stage at a position is the same.
"""

from __future__ import annotations

import bisect
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.events import Event, JobEnded, ReplyEnded, Token

from .narrate import narrate
from .stage import Stage
from .tape import Act, Tape

PAUSE = 2.0  # seconds between acts at most: what was waited beyond it is left out
UNKNOWN_PAUSE = 0.5  # seconds, where the recording does not tell how long was waited
SPEAKING = 0.5  # seconds that an answer takes whose own time was not recorded
SPEEDS = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Moment:
    """Something that is shown at second `at` of the replay.

    kind   begin | event | token (a piece of an answer: only the whole was recorded) | end
    """

    at: float
    act: int
    kind: str
    event: Event | None = None


def moments(acts: tuple[Act, ...]) -> list[Moment]:
    """Everything there is to play, in order."""
    found: list[Moment] = []
    now = 0.0
    for index, act in enumerate(acts):
        if index:
            now += pause(act)
        found += _of(act, index, now)
        now = found[-1].at
    return found


def pause(act: Act) -> float:
    """Seconds of rest before an act."""
    return UNKNOWN_PAUSE if math.isnan(act.waited) else min(PAUSE, max(0.0, act.waited))


def left_out(act: Act) -> float:
    """Seconds of waiting before an act that the replay leaves out."""
    return 0.0 if math.isnan(act.waited) else max(0.0, act.waited - PAUSE)


def _of(act: Act, index: int, start: float) -> Iterator[Moment]:
    """The moments of one act; their times never go back."""
    yield Moment(start, index, "begin")
    last = start
    spoken = False
    for event in act.events:
        at = max(last, start + event.t)
        if not spoken and (text := _answer(act, event)):
            spoken = True
            for each in _pieces(text, *_speaking(event, start, last, at)):
                yield Moment(each[0], index, "token", Token(text=each[1]))
        last = at
        yield Moment(at, index, "event", event)
    if not act.events and act.answer is not None and act.answer.text:
        end = start + (act.answer.seconds or SPEAKING)
        for each in _pieces(act.answer.text, start, end):
            yield Moment(each[0], index, "token", Token(text=each[1]))
        last = end
    if not act.events or not isinstance(act.events[-1], JobEnded):
        yield Moment(last, index, "end")


def _answer(act: Act, event: Event) -> str:
    """The text that was being said when this event came: a whole answer, or one cut short."""
    if isinstance(event, ReplyEnded):
        return event.text
    stopped = isinstance(event, JobEnded) and act.answer is not None
    return act.answer.text if stopped and act.answer else ""


def _speaking(event: Event, start: float, last: float, at: float) -> tuple[float, float]:
    """From when to when the answer was being said."""
    if isinstance(event, ReplyEnded):
        return min(at, max(last, at - event.seconds + event.first_token)), at
    return last, at


def _pieces(text: str, begun: float, ended: float) -> Iterator[tuple[float, str]]:
    """Words, spread evenly over the time."""
    words = re.findall(r"\s*\S+|\s+$", text)
    for i, word in enumerate(words):
        yield begun + (ended - begun) * i / len(words), word


class Player:
    """Where the replay stands, and whether it runs.

    clock  seconds; injected, so that tests say what time it is
    """

    def __init__(self, tape: Tape, clock: Callable[[], float] = time.monotonic) -> None:
        self.tape = tape
        self.moments = moments(tape.acts)
        self.position = 0
        self.playing = False
        self.speed = SPEEDS[0]
        self._clock = clock
        self._times = [moment.at for moment in self.moments]
        self._seconds = 0.0  # of the replay, when `_since` was read off the clock
        self._since = 0.0
        self._marks = {0: Stage()}  # by position, at the beginnings of acts
        self._stage = (0, Stage())  # the last one asked for

    # -- time --------------------------------------------------------------------------------

    @property
    def length(self) -> float:
        """Seconds that the whole replay takes at speed 1."""
        return self._times[-1] if self._times else 0.0

    @property
    def seconds(self) -> float:
        """Where it stands now."""
        if not self.playing:
            return self._seconds
        passed = (self._clock() - self._since) * self.speed
        return min(self.length, self._seconds + passed)

    @property
    def ended(self) -> bool:
        return self.position >= len(self.moments)

    def play(self) -> None:
        """Run; from the beginning when it stands at the end."""
        if self.playing:
            return
        if self.ended:
            self.seek(0)
        self._since = self._clock()
        self.playing = True

    def stop(self) -> None:
        self._seconds, self.playing = self.seconds, False

    def set_speed(self, speed: float) -> None:
        """Seconds of the replay in one second. Raises ValueError unless it is above 0."""
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(f"a speed is a number above 0, not {speed}")
        self._seconds, self._since = self.seconds, self._clock()
        self.speed = speed

    def tick(self) -> bool:
        """Go on to where the clock says; True when something was played."""
        if not self.playing:
            return False
        before = self.position
        self.position = max(before, bisect.bisect_right(self._times, self.seconds))
        if self.ended:
            self.stop()
        return self.position != before

    # -- going somewhere ---------------------------------------------------------------------

    def seek(self, position: int) -> None:
        """Stand where the first `position` moments have been played."""
        self.position = min(max(position, 0), len(self.moments))
        self._seconds = self._times[self.position - 1] if self.position else 0.0
        self._since = self._clock()

    def seek_seconds(self, seconds: float) -> None:
        """Stand at a time; before the beginning and behind the end are those."""
        wanted = min(max(seconds, 0.0), self.length)
        self.seek(bisect.bisect_right(self._times, wanted))
        self._seconds = wanted

    def step(self, direction: int) -> None:
        """To the next (1) or the previous (-1) event, and stop. Pieces of answers are none."""
        self.stop()
        place = self.position + direction
        while 0 < place < len(self.moments) and self.moments[place - 1].kind == "token":
            place += direction
        self.seek(place)

    def step_edit(self, direction: int) -> None:
        """To the beginning of the next (1) or previous (-1) edit; else to the end or the start."""
        begins = [
            place
            for place, moment in enumerate(self.moments, start=1)
            if moment.kind == "begin" and self.tape.acts[moment.act].kind == "correct"
        ]
        if direction > 0:
            self.seek(next((b for b in begins if b > self.position), len(self.moments)))
        else:
            self.seek(next((b for b in reversed(begins) if b < self.position), 0))

    # -- what is to be seen ------------------------------------------------------------------

    @property
    def act(self) -> Act | None:
        """The act that the last moment played belongs to."""
        return self.tape.acts[self.moments[self.position - 1].act] if self.position else None

    def stage(self) -> Stage:
        """What is shown at the position."""
        place, stage = self._stage
        if place > self.position or place < self._mark_before():
            place = self._mark_before()
            stage = self._marks[place]
        while place < self.position:
            moment = self.moments[place]
            act = self.tape.acts[moment.act]
            if moment.kind == "begin":
                self._marks[place] = stage
                stage = stage.begin(act)
            elif moment.event is not None:
                stage = stage.take(act, moment.event)
            if moment.kind == "end" or isinstance(moment.event, JobEnded):
                stage = stage.end(act)
            place += 1
        self._stage = (place, stage)
        return stage

    def _mark_before(self) -> int:
        """The last beginning of an act, up to the position, whose stage is known."""
        return max(place for place in self._marks if place <= self.position)

    def log(self, limit: int) -> list[str]:
        """The researcher's log up to the position: its last `limit` lines."""
        lines: list[str] = []
        place = self.position
        while place > 0 and len(lines) < limit:
            place -= 1
            lines[:0] = told(self.moments[place], self.tape.acts[self.moments[place].act])
        return lines[-limit:]


def told(moment: Moment, act: Act) -> list[str]:
    """The lines of the log that a moment is worth."""
    if moment.kind == "begin" and act.question:
        return [f"question: {act.question!r}"] if act.kind != "correct" else []
    if moment.kind == "token" or moment.event is None:
        return []
    return narrate(moment.event)
