"""The transport bar of a replay: where it stands, what comes, what was left out."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from ..player import Player, left_out
from ..retell import duration

SHORT = 60  # columns below which only the time and the event are said


def clock_text(seconds: float) -> str:
    """ "1:05"; hours only where there are some."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def parse_time(text: str) -> float:
    """Seconds of "90", "1:30" or "1:02:03".

    Raises ValueError, with a message for a person.
    """
    try:
        parts = [float(part) for part in text.strip().split(":")]
    except ValueError:
        parts = []
    sound = all(0 <= part < float("inf") for part in parts)
    if not 1 <= len(parts) <= 3 or not sound or any(part >= 60 for part in parts[1:]):
        raise ValueError(f"{text.strip()!r} is not a time. Examples: 90, 1:30")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


class Transport(Widget):
    """A line of words and a track on which the edits are marked; a click on it goes there."""

    COMPONENT_CLASSES: ClassVar = {
        "transport--state",
        "transport--text",
        "transport--quiet",
        "transport--done",
        "transport--rest",
        "transport--edit",
    }
    ALLOW_SELECT = False

    class Sought(Message):
        """The track was clicked. seconds: of the replay."""

        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

    def __init__(self, player: Player, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.player = player
        places = [
            (moment.at, place)
            for place, moment in enumerate(player.moments, start=1)
            if moment.kind == "begin" and player.tape.acts[moment.act].kind == "correct"
        ]
        self._edits = [at for at, _ in places]
        self._begins = [place for _, place in places]
        recorded = [i for i, m in enumerate(player.moments, start=1) if m.kind != "token"]
        self._events = recorded

    def on_mount(self) -> None:
        self.border_title = "Replay · read-only"

    def render(self) -> Text:
        width = max(10, self.size.width)
        words = self._words(width)
        words.truncate(width, overflow="ellipsis")
        return Text.assemble(words, "\n", self._track(width), no_wrap=True)

    # -- words -------------------------------------------------------------------------------

    def _words(self, width: int) -> Text:
        player = self.player
        text = Text(self._state(), self._style("state"), end="")
        text.append(
            f"  {clock_text(player.seconds)} / {clock_text(player.length)}", self._style("text")
        )
        event = sum(1 for place in self._events if place <= player.position)
        text.append(f" · event {event}/{len(self._events)}", self._style("text"))
        if width < SHORT:
            return text
        edit = sum(1 for place in self._begins if place <= player.position)
        if self._begins:
            text.append(f" · edit {edit}/{len(self._begins)}", self._style("text"))
        act = player.act
        if act is not None and (rest := left_out(act)) >= 1:
            text.append(f" · {duration(rest)} of waiting left out here", self._style("quiet"))
        return text

    def _state(self) -> str:
        player = self.player
        plain = getattr(self.app, "ascii", False)
        speed = f"{player.speed:g}x" if plain else f"{player.speed:g}×"
        if player.playing:
            return f"{'>' if plain else '▶'} playing {speed}"
        word = "at the end" if player.ended else "paused"
        return f"{'||' if plain else '❚❚'} {word} {speed}"

    # -- track -------------------------------------------------------------------------------

    def _track(self, width: int) -> Text:
        """Played part, head, rest; a mark where each edit begins."""
        done, head, rest, edit = "=|-#" if getattr(self.app, "ascii", False) else "━●─◆"
        line = Text(no_wrap=True, end="")
        here = self._cell(self.player.seconds, width)
        marks = {self._cell(at, width) for at in self._edits}
        for cell in range(width):
            if cell == here:
                line.append(head, self._style("state"))
            elif cell in marks:
                line.append(edit, self._style("edit"))
            else:
                played = cell < here
                line.append(done if played else rest, self._style("done" if played else "rest"))
        return line

    def _cell(self, seconds: float, width: int) -> int:
        length = self.player.length
        return round(seconds / length * (width - 1)) if length else 0

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        if place is not None and place.y == 1:
            width = max(2, self.size.width)
            self.post_message(self.Sought(place.x / (width - 1) * self.player.length))

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"transport--{part}")
