"""The lines of a timeline, one chosen. Long texts are cut to the width."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ..texts import clip, visible
from ..timeline_text import HERE, Words, words
from ..tree import NodeView, Timeline
from .bound import bindings

DEEPEST = 6  # branchings that are still indented
GUIDE = "╎ "
WHO = 6


class TimelineList(OptionList):
    """Draws a `Timeline`. The keys are the screen's to carry out."""

    COMPONENT_CLASSES: ClassVar = {
        "timeline-list--message", "timeline-list--away", "timeline-list--edit",
        "timeline-list--deed", "timeline-list--good", "timeline-list--bad",
        "timeline-list--here",
    }  # fmt: skip
    HELP = """What was said, edited and undone, in order. The way to where the conversation stands
        runs straight down; what left it is indented."""
    PLACE = "timeline"
    BINDINGS: ClassVar = bindings("timeline")

    class Acted(Message):
        """A key was pressed on a line. `node` is None in an empty timeline."""

        def __init__(self, action: str, node: NodeView | None) -> None:
            super().__init__()
            self.action, self.node = action, node

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.timeline: Timeline | None = None
        self._width = 0

    @property
    def chosen(self) -> NodeView | None:
        at = self.highlighted
        nodes = self.timeline.nodes if self.timeline else ()
        return nodes[at] if at is not None and at < len(nodes) else None

    def show(self, timeline: Timeline | None, node: str = "") -> None:
        """Draw this one; the cursor stays on its node, or goes to `node`, else to the tip."""
        same = self.timeline and timeline and self.timeline.session == timeline.session
        wanted = node or (self.chosen.id if same and self.chosen else "")
        self.timeline = timeline
        self._draw()
        if timeline is None or not timeline.nodes:
            return
        place = timeline.place(wanted)
        if place < 0:
            place = next(
                (i for i, n in enumerate(timeline.nodes) if n.tip), len(timeline.nodes) - 1
            )
        self.highlighted = place

    def on_resize(self, event: events.Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            at = self.highlighted
            self._draw()
            self.highlighted = at

    def _draw(self) -> None:
        self._width = width = self.scrollable_content_region.width
        nodes = self.timeline.nodes if self.timeline else ()
        self.clear_options()
        self.add_options(Option(self._line(node, max(width, 10))) for node in nodes)

    def _line(self, node: NodeView, width: int) -> Text:
        said = words(node)
        line = Text(no_wrap=True).append(GUIDE * min(node.depth, DEEPEST), self._style("away"))
        line.append(self._who(said), self._style(said.tone if node.here else "away"))
        remarks = Text()
        if said.remark:
            mood = {"good": "good", "bad": "bad"}.get(said.mood, "away")
            remarks.append(f" {visible(said.remark)}", self._style(mood))
        if node.tip:
            remarks.append(f" {HERE}", self._style("here"))
        room = width - line.cell_len - remarks.cell_len
        style = self._style(said.tone if node.here else "away")
        line.append(clip(said.text, room), style + Style(strike=said.gone))
        line.append(" " * (width - line.cell_len - remarks.cell_len))
        return line.append_text(remarks)

    def _who(self, said: Words) -> str:
        return said.who.ljust(WHO) + " " if said.tone == "message" else f"{said.who}  "

    def _style(self, part: str) -> Style:
        """Without the background: that of the chosen line must show."""
        style = self.get_component_rich_style(f"timeline-list--{part}")
        return style.without_color + Style(color=style.color)

    # -- keys --------------------------------------------------------------------------------

    def action_act(self, action: str) -> None:
        self.post_message(self.Acted(action, self.chosen))

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self.action_act("jump")
