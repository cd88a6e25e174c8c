"""A session as it was recorded, whole and by itself: what replay plays.

A database gives one (`Store.recording`), and so does a file that carries a session elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import edits, log, owner, tree
from .database import Connection
from .errors import UnknownEdit
from .fold import State, fold
from .rows import EditRow, Message, Node, Session, Told

Chunks = Callable[[str], Iterator[bytes]]


@dataclass(frozen=True)
class Recording:
    """Everything that happened in a session.

    nodes     the tree in the order it grew
    messages  by node
    edits     in any state, in the order they were begun
    states    by node: the edits in force there, and the undone ones
    events    in the order they were told
    chunks    a tensor file by its sha256, piece by piece; raises CorruptTensors or BadBundle
    """

    session: Session
    nodes: tuple[Node, ...]
    messages: Mapping[str, Message]
    edits: tuple[EditRow, ...]
    states: Mapping[str, State]
    events: tuple[Told, ...]
    chunks: Chunks = dataclasses.field(compare=False, repr=False)

    def path(self, node: str | None) -> list[Node]:
        """The nodes from the root to `node`."""
        by_id = {each.id: each for each in self.nodes}
        found: list[Node] = []
        while node is not None and node in by_id:
            found.append(by_id[node])
            node = by_id[node].parent
        return found[::-1]

    def conversation(self, node: str | None) -> list[Message]:
        """The messages from the root to `node`, without those that are forgotten there."""
        said = [self.messages[n.id] for n in self.path(node) if n.id in self.messages]
        return tree.remembered(said, self.states[node].forgotten if node else ())

    def tensors(self, edit: EditRow) -> bytes:
        """The tensor file of an edit that is done.

        Raises UnknownEdit (it is not), CorruptTensors or BadBundle.
        """
        if edit.tensors is None:
            raise UnknownEdit(f"edit {edit.id} has no tensors: it is {edit.state}.")
        return b"".join(self.chunks(edit.tensors))


def states(nodes: Sequence[Node], done: Collection[str]) -> dict[str, State]:
    """By node, the fold over the way to it.

    done  ids of the edits that were finished; the others have no effect
    """
    found: dict[str, State] = {}
    for node in nodes:  # parents come first: the tree only grows
        before = found.get(node.parent or "", State())
        void = node.kind == "edit" and node.target not in done
        step = tree.step_of(node.kind, node.target, node.detail)
        found[node.id] = before if void else fold([step], before)
    return found


def read(db: Connection, session: Session, chunks: Chunks) -> Recording:
    """What the database holds of a session. Inside a snapshot: others may be writing."""
    about = {"session": session.id}
    found = [_as_it_is(e) for e in edits.select(db, "node.session = :session", about)]
    nodes = tree.nodes(db, "n.session = :session", about)
    return Recording(
        session=session,
        nodes=tuple(nodes),
        messages={m.node: m for m in tree.messages(db, session.id)},
        edits=tuple(found),
        states=states(nodes, {edit.id for edit in found if edit.state == "done"}),
        events=tuple(log.told(db, session.id)),
        chunks=chunks,
    )


def _as_it_is(edit: EditRow) -> EditRow:
    """An edit that still runs by its row, whose process is gone, was interrupted."""
    if edit.state == "running" and not owner.is_alive(edit.owner):
        return dataclasses.replace(edit, state="interrupted")
    return edit
