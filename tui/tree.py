"""A session as a vertical timeline: its tree, laid out in lines.

The way from the first node to the tip runs straight down. What left it (an old answer, an edit
that was undone, another branch) is indented under the node where it left, and older than what
follows it there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessions import ids
from sessions.rows import EditRow, Message, Node, Session

from .timeline import edit_views
from .views import EditView

if TYPE_CHECKING:
    from sessions.store import Store

HIDDEN = frozenset({"carry"})  # bookkeeping, not something that was done
MESSAGES = frozenset({"user", "assistant"})


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A line of the timeline.

    id      the node
    kind    "user" | "assistant" | "edit" | "undo" | "redo" | "drop" | ... as recorded
    depth   0 on the way to the tip, and one more with each branching off
    here    on the way to the tip, where the session stands
    tip     the last line of that way
    forgotten  a message on that way that is left out of the conversation
    seconds  that an answer or an edit took
    text    of a message, and of the one that was forgotten or remembered
    edit    of an edit, and the edit that an undo, redo or drop is about
    """

    id: str
    kind: str
    depth: int
    here: bool
    tip: bool = False
    text: str = ""
    edit: EditView | None = None
    stopped: str = ""
    seconds: float = 0.0
    created: str = ""
    forgotten: bool = False

    @property
    def short(self) -> str:
        """The end of the id, enough to name the node by."""
        return ids.short(self.id)

    @property
    def is_message(self) -> bool:
        return self.kind in MESSAGES


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A session's lines, top to bottom."""

    session: str
    title: str
    model: str
    fingerprint: str
    nodes: tuple[NodeView, ...] = ()

    @property
    def path(self) -> tuple[NodeView, ...]:
        return tuple(node for node in self.nodes if node.here)

    def place(self, node: str) -> int:
        """The index of a node's line; -1 when it has none."""
        return next((i for i, each in enumerate(self.nodes) if each.id == node), -1)


def read_timeline(store: Store, ref: str) -> Timeline:
    """The timeline of a session by id or title. Raises SessionError."""
    session = store.session(ref)
    nodes = store.nodes(session.id)
    messages = {message.node: message for message in store.messages(session.id)}
    rows = store.edits(session.id)
    active = [row.id for row in store.active_edits(session.id)]
    edits = edit_views(rows, active, undone_of(nodes))
    kept = {message.node for message in store.conversation(session.id)}
    return _timeline(session, nodes, messages, rows, edits, kept)


def undone_of(nodes: Sequence[Node]) -> frozenset[str]:
    """Edits that were taken off somewhere in these nodes, whether or not they were put back."""
    return frozenset(n.target for n in nodes if n.kind in ("undo", "drop") and n.target)


def _timeline(
    session: Session,
    nodes: Sequence[Node],
    messages: Mapping[str, Message],
    rows: Sequence[EditRow],
    edits: Sequence[EditView],
    kept: Collection[str],
) -> Timeline:
    """kept: nodes of the messages of the conversation, forgotten ones not among them."""
    by_id = {edit.id: edit for edit in edits}
    spent = {row.id: row.seconds.get("total", 0.0) for row in rows}
    path = _path(nodes, session.tip)
    lines = []
    for node, depth in laid_out(nodes, path):
        message = messages.get(node.id)
        about = message or messages.get(str(node.detail.get("message", "")))
        edit = by_id.get(node.target or "")
        lines.append(
            NodeView(
                id=node.id,
                kind=message.role if message else node.kind,
                depth=depth,
                here=node.id in path,
                tip=node.id == session.tip,
                text=about.text if about else "",
                edit=edit,
                stopped=message.stopped_by if message else "",
                seconds=message.seconds if message else spent.get(node.target or "", 0.0),
                created=node.created,
                forgotten=message is not None and node.id in path and node.id not in kept,
            )
        )
    return Timeline(
        session=session.id,
        title=session.title,
        model=session.model.name,
        fingerprint=session.model.fingerprint,
        nodes=tuple(lines),
    )


def _path(nodes: Sequence[Node], tip: str | None) -> frozenset[str]:
    """The nodes from the root to `tip`."""
    parents = {node.id: node.parent for node in nodes}
    found = set()
    while tip is not None:
        found.add(tip)
        tip = parents[tip]
    return frozenset(found)


def laid_out(nodes: Sequence[Node], path: Collection[str]) -> list[tuple[Node, int]]:
    """The nodes in the order of their lines, with the depth of each; hidden ones are left out.

    The child on the way to the tip goes on at the same depth; off that way the newest does. The
    others stand before it, one deeper.
    """
    children: dict[str | None, list[Node]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    lines: list[tuple[Node, int]] = []

    def below(parent: str | None, depth: int) -> list[tuple[Node, int]]:
        """Children with their depths, in the reverse of the order in which they are drawn."""
        found = children.get(parent, [])
        straight = next((node for node in found if node.id in path), None)
        if straight is None and found and parent is not None and parent not in path:
            straight = found[-1]
        aside = [(node, depth + 1) for node in reversed(found) if node is not straight]
        return [(straight, depth), *aside] if straight is not None else aside

    waiting = below(None, 0)
    while waiting:  # not by recursion: a chat may be longer than Python's stack
        node, depth = waiting.pop()
        if node.kind not in HIDDEN:
            lines.append((node, depth))
        waiting += below(node.id, depth)
    return lines
