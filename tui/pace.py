"""How long a stage, or an optimisation, will still take: of every front end."""

from __future__ import annotations

import math

from engine.events import EditStep, Loading

STEPS = "edit"  # the stage of an optimisation's steps


class Pace:
    """Goes by the times of the events of one stage. It begins anew with another stage or job, and
    where one counts from the beginning again."""

    def __init__(self) -> None:
        self._of = ("", "")  # job, stage
        self._began = self._now = (0.0, 0.0)  # time, done
        self._total = 0.0

    def feed(self, event: EditStep | Loading, t: float) -> None:
        """Take in the next event, which came at `t` seconds."""
        if isinstance(event, EditStep):
            stage, done, total = STEPS, float(event.step), float(event.of)
        else:
            stage, done, total = event.stage, event.done, event.total
        if (event.job, stage) != self._of or done < self._now[1]:
            self._of, self._began = (event.job, stage), (t, done)
        self._now, self._total = (t, done), total

    def left(self) -> float:
        """Seconds until the stage ends, at the pace it has had; NaN while that is not known.

        Steps that a group of facts did not need count as taken in no time.
        """
        (began, first), (now, done) = self._began, self._now
        if done <= first or self._total <= 0:
            return math.nan
        return (now - began) / (done - first) * max(0.0, self._total - done)


def about(seconds: float) -> str:
    """ "about 20 s left"; "" where that is not known, or nothing is left."""
    if math.isnan(seconds) or seconds <= 0:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit} left"
    return f"about {max(1, round(seconds))} s left"
