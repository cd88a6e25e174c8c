"""The timeline in words: one wording for the screen and for the plain prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .narrate import count

if TYPE_CHECKING:
    from .tree import NodeView, Timeline
    from .views import EditView, Moved, UndoPlan

WHO = {"user": "you", "assistant": "model"}
DEEDS = {
    "undo": "↶ undid", "redo": "↷ put back", "drop": "⌫ dropped",
    "forget": "⌫ forgot", "remember": "↷ remembered",
}  # fmt: skip
HERE = "◂ here"


@dataclass(frozen=True)
class Words:
    """A node in words.

    who     who said it, or the sign and number of what was done
    text    what was said or changed; may be long
    remark  what became of it: never told by a colour alone
    tone    "message" | "edit" | "deed"
    mood    of the remark: "good" | "bad" | "muted"
    gone    no longer in force: struck through where that can be shown
    """

    who: str
    text: str = ""
    remark: str = ""
    tone: str = "message"
    mood: str = "muted"
    gone: bool = False


def words(node: NodeView) -> Words:
    """What a node of the timeline says."""
    if node.is_message:
        stopped = {"cancelled": "■ stopped", "length": "■ cut off"}.get(node.stopped, "")
        forgotten = "⌫ forgotten" if node.forgotten else ""
        return Words(WHO[node.kind], node.text, forgotten or stopped, gone=node.forgotten)
    if node.kind == "edit" and node.edit is not None:
        return _edit(node.edit, node.seconds)
    number = f" #{node.edit.number}" if node.edit else ""
    return Words(DEEDS.get(node.kind, node.kind) + number, node.text, tone="deed")


def _edit(edit: EditView, seconds: float) -> Words:
    took = "took" if edit.success else "did not take"
    remark, mood = {
        "applied": (
            f"✓ {took}" if edit.success else f"✗ {took}",
            "good" if edit.success else "bad",
        ),
        "superseded": (f"◇ superseded by #{edit.superseded_by} ({took})", "muted"),
        "undone": (f"↶ undone ({took})", "muted"),
        "elsewhere": (f"◇ on another branch ({took})", "muted"),
        "failed": ("✗ failed", "bad"),
        "cancelled": ("■ stopped", "muted"),
        "interrupted": ("✗ interrupted", "bad"),
        "running": ("… running", "muted"),
    }.get(edit.state, (edit.state, "muted"))
    if seconds and edit.state == "applied":
        remark += f" · {seconds:.1f} s"
    return Words(
        f"◆ #{edit.number} {edit.method}", edit.fact, remark, "edit", mood,
        gone=edit.state in ("undone", "elsewhere", "superseded"),
    )  # fmt: skip


def plain_lines(timeline: Timeline) -> list[str]:
    """The timeline, a line each: id, what, and what became of it. Nothing is cut."""
    lines = []
    for node in timeline.nodes:
        said = words(node)
        remarks = [r for r in (said.remark, "" if node.here else "left", HERE * node.tip) if r]
        text = " ".join(said.text.split())
        line = f"{node.short}  {'  ' * node.depth}{said.who}: {text}".rstrip(": ")
        lines.append(line + (f"  [{', '.join(remarks)}]" if remarks else ""))
    return lines


def plan_sentence(plan: UndoPlan) -> str:
    """What an undo back to a place will do, before it is done."""
    numbers = ", ".join(f"#{edit.number}" for edit in plan.edits)
    text = f"Undo {count(len(plan.edits), 'edit')} ({numbers})"
    if plan.leaving:
        verb = "is" if plan.leaving == 1 else "are"
        text += f"; {count(plan.leaving, 'later message')} {verb} kept in the timeline, greyed"
    text += "; the model is restored exactly."
    if plan.absent:
        absent = ", ".join(f"#{edit.number}" for edit in plan.absent)
        text += f" {absent}, undone since, {'stays' if len(plan.absent) == 1 else 'stay'} undone."
    return text


def moved_sentence(moved: Moved) -> str:
    """Where the conversation stands after a branch, an undo to a place, or another session."""
    edits = count(len(moved.active), "edit") if moved.active else "no edits"
    state = f"{count(moved.turns, 'turn')}, {edits} in force"
    if moved.action == "open":
        return f"This is session {moved.title} now: {state}."
    if moved.action == "undo_to":
        numbers = ", ".join(f"#{edit.number}" for edit in moved.undone)
        return f"Undone, exactly: {numbers}. {state[:1].upper()}{state[1:]}; redo puts them back."
    ask = "" if moved.answered else " /retry asks the last question again."
    return f"On a branch from here on: {state}.{ask}"
