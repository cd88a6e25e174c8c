"""A session as it was recorded, whole and by itself: what replay plays.

A database gives one (`Store.recording`), and so does a file that carries a session elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import edits, owner, tree
from .database import Connection
from .fold import State, Step, fold
from .rows import EditRow, JsonDict, Message, Node, Session


@dataclass(frozen=True)
class Told:
    """An event of a job. node: what it belongs to; event: the engine's JSON."""

    node: str | None
    job: str
    event: JsonDict


@dataclass(frozen=True)
class Recording:
    """Everything that happened in a session.

    nodes     the tree in the order it grew
    messages  by node
    edits     in any state, in the order they were begun
    states    by node: the edits in force there, and the undone ones
    events    in the order they were told
    """

    session: Session
    nodes: tuple[Node, ...]
    messages: Mapping[str, Message]
    edits: tuple[EditRow, ...]
    states: Mapping[str, State]
    events: tuple[Told, ...]

    def path(self, node: str | None) -> list[Node]:
        """The nodes from the root to `node`."""
        by_id = {each.id: each for each in self.nodes}
        found: list[Node] = []
        while node is not None and node in by_id:
            found.append(by_id[node])
            node = by_id[node].parent
        return found[::-1]


def states(
    nodes: Sequence[Node], carried: Mapping[str, State], done: frozenset[str]
) -> dict[str, State]:
    """By node, the fold over the way to it.

    carried  what the carry nodes state, by node
    done     ids of the edits that were finished; the others have no effect
    """
    found: dict[str, State] = {}
    for node in nodes:  # parents come first: the tree only grows
        before = found.get(node.parent or "", State())
        void = node.kind == "edit" and node.target not in done
        step = Step(node.kind, node.target or "", carried.get(node.id))
        found[node.id] = before if void else fold([step], before)
    return found


def read(db: Connection, session: Session) -> Recording:
    """What the database holds of a session.

    Another process may be writing into it: events are read first and nodes last, so that
    whatever is referred to is there.
    """
    rows = db.rows(
        """SELECT node.id AS node, event.job, event.json FROM event
        LEFT JOIN node ON node.seq = event.node
        WHERE event.session = :session ORDER BY event.id""",
        {"session": session.id},
    )
    events = tuple(Told(row["node"], row["job"], json.loads(row["json"])) for row in rows)
    about = {"session": session.id}
    found = [_as_it_is(e) for e in edits.select(db, "node.session = :session", about)]
    messages = {m.node: m for m in tree.messages(db, session.id)}
    nodes = tree.nodes(db, "n.session = :session", about)
    done = frozenset(edit.id for edit in found if edit.state == "done")
    return Recording(
        session=session,
        nodes=tuple(nodes),
        messages=messages,
        edits=tuple(found),
        states=states(nodes, tree.carried(db, session.id), done),
        events=events,
    )


def _as_it_is(edit: EditRow) -> EditRow:
    """An edit that still runs by its row, whose process is gone, was interrupted."""
    if edit.state == "running" and not owner.is_alive(edit.owner):
        return dataclasses.replace(edit, state="interrupted")
    return edit
