"""The part of a store that grows: messages, edits, marks and events of a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import catalog, edits, log, tree
from .blobs import Blobs
from .codec import clean, dumps
from .database import Connection
from .errors import SessionMoved, UnknownEdit, UnknownNode
from .fold import Step, superseded
from .rows import EditRow, JsonDict, Message, Node, PatchRecord

TENSORS = "tensors"
MARKS = ("undo", "redo", "drop")


class TreeStore:
    """What happens in sessions that are there; `Store` adds making, finding and removing them."""

    def __init__(self, home: Path, db: Connection) -> None:
        self.home = home
        self._db = db
        self._blobs = Blobs(home / TENSORS)
        self._standing: dict[str, int | None] = {}  # by session followed

    # Where it stands

    def follow(self, session_id: str, node_id: str | None = None) -> None:
        """Stand at a node of a session (default: its tip), and move by what is written here.

        Otherwise the tip is read anew each time. What another process writes meanwhile stays
        beside it: a message goes on from where this store stands, as a branch. But where the other
        has changed which edits are in force, writing raises SessionMoved until the session is
        followed again. Raises UnknownSession, UnknownNode.
        """
        self._standing[session_id] = tree.seq_of(self._db, session_id, node_id)

    def moved(self, session_id: str) -> bool:
        """Whether another process has gone on with a session that is followed."""
        tip = tree.session_tip(self._db, session_id)
        return self._standing.get(session_id, tip) != tip

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """All that is written inside, or nothing of it."""
        standing = dict(self._standing)
        try:
            with self._db.transaction():
                yield
        except BaseException:
            self._standing = standing
            raise

    def _at(self, session_id: str, node_id: str | None) -> int | None:
        """The seq of a node; by default of the place where this store stands."""
        if node_id is None and session_id in self._standing:
            return self._standing[session_id]
        return tree.seq_of(self._db, session_id, node_id)

    def _here(self, session_id: str) -> int | None:
        """Where what is written next belongs. Raises UnknownSession, SessionMoved."""
        tip = tree.session_tip(self._db, session_id)
        here = self._standing.get(session_id, tip)
        if tree.ledger_hash_at(self._db, here) != tree.ledger_hash_at(self._db, tip):
            raise SessionMoved(
                "another llm-edit has changed the edits of this session; nothing was written.",
                "Open the session again (/open) to go on with it as it is now.",
            )
        return here

    def _append(
        self, session_id: str, parent: str | None, step: Step, ledger_hash: str | None = None
    ) -> int:
        here = self._here(session_id)
        return tree.append(self._db, session_id, here, parent, step, ledger_hash)

    def _move(self, session_id: str, seq: int) -> None:
        tree.move(self._db, session_id, seq)
        if session_id in self._standing:
            self._standing[session_id] = seq

    # The tree

    def add_message(
        self,
        session_id: str,
        role: str,
        text: str,
        *,
        parent: str | None = None,
        tokens: int = 0,
        seconds: float = 0.0,
        stopped_by: str = "",
        fresh: bool = False,
        ledger_hash: str | None = None,
    ) -> Node:
        """A message under `parent` (default: the tip), which becomes the tip.

        ledger_hash: by default that of the tip. Raises UnknownSession, UnknownNode.
        """
        with self.atomic():
            seq = self._append(session_id, parent, Step("message"), ledger_hash)
            row = {
                "node": seq,
                "role": role,
                "text": clean(text),
                "tokens": tokens,
                "seconds": seconds,
                "stopped_by": stopped_by,
                "fresh": fresh,
            }
            self._db.insert("message", row)
            self._move(session_id, seq)
            return self._node(seq)

    def add_mark(
        self,
        session_id: str,
        kind: str,
        edit_id: str,
        *,
        parent: str | None = None,
        ledger_hash: str,
    ) -> Node:
        """An undo, redo or drop of an edit under `parent` (default: the tip), the new tip.

        Raises UnknownSession, UnknownNode, UnknownEdit (of another session, or never done).
        """
        if kind not in MARKS:
            raise ValueError(f"a mark is one of {', '.join(MARKS)}, not {kind!r}")
        with self.atomic():
            tree.session_tip(self._db, session_id)
            edit = self.edit(edit_id)
            if edit.session != session_id or edit.state != "done":
                raise UnknownEdit(f"edit {edit.id} is {edit.state}, in session {edit.session}.")
            seq = self._append(session_id, parent, Step(kind, edit.id), ledger_hash)
            self._move(session_id, seq)
            return self._node(seq)

    def move_tip(self, session_id: str, node_id: str) -> None:
        """Stand at another node, with the edits active there. Raises Unknown…"""
        with self.atomic():
            seq = tree.seq_of(self._db, session_id, node_id)
            assert seq is not None, "a named node exists"
            self._move(session_id, seq)

    def _node(self, seq: int) -> Node:
        return tree.nodes(self._db, "n.seq = :seq", {"seq": seq})[0]

    def nodes(self, session_id: str) -> list[Node]:
        """The whole tree, in the order it grew. Raises UnknownSession."""
        tree.session_tip(self._db, session_id)
        return tree.nodes(self._db, "n.session = :session", {"session": session_id})

    def path(self, session_id: str, tip: str | None = None) -> list[Node]:
        """The nodes from the root to `tip` (default: the tip). Raises Unknown…"""
        return tree.path(self._db, self._at(session_id, tip))

    def conversation(self, session_id: str, tip: str | None = None) -> list[Message]:
        """The messages from the root to `tip` (default: the tip). Raises Unknown…"""
        return tree.conversation(self._db, self._at(session_id, tip))

    def messages(self, session_id: str) -> list[Message]:
        """All messages of a session, on whichever branch, as they came. Raises UnknownSession."""
        tree.session_tip(self._db, session_id)
        return tree.messages(self._db, session_id)

    def forget(self, session_id: str, node_id: str) -> Node:
        """Leave a message of the conversation out of it from here on; returns the new tip.

        A question takes its answers along. Nothing is removed: the message stays in its place
        of the tree, `remember` takes it back in, and moving the tip to before this node does too.
        Raises UnknownSession, UnknownNode (no message of the conversation at the tip).
        """
        if node_id not in {message.node for message in self.conversation(session_id)}:
            raise UnknownNode(f"{node_id} is no message of the conversation.")
        return self._about("forget", session_id, node_id)

    def remember(self, session_id: str, node_id: str) -> Node:
        """Take a forgotten message back into the conversation; returns the new tip.

        Raises UnknownSession, UnknownNode (it is not forgotten at the tip).
        """
        if node_id not in self.forgotten(session_id):
            raise UnknownNode(f"{node_id} is no message that was forgotten.")
        return self._about("remember", session_id, node_id)

    def _about(self, kind: str, session_id: str, node_id: str) -> Node:
        with self.atomic():
            seq = self._append(session_id, None, Step(kind, message=node_id))
            self._move(session_id, seq)
            return self._node(seq)

    def forgotten(self, session_id: str, tip: str | None = None) -> tuple[str, ...]:
        """Nodes of the messages that are forgotten at `tip`, the last one last."""
        return tree.state_at(self._db, self._at(session_id, tip)).forgotten

    # Edits

    def begin_edit(
        self,
        session_id: str,
        *,
        edit_id: str,
        method: str,
        hparams: JsonDict,
        request: JsonDict,
        parent: str | None = None,
        seed: int = 0,
        device: str = "",
    ) -> Node:
        """Record the intent to edit, before anything is computed; the tip stays.

        The edit runs until `finish_edit` or `fail_edit`, or until this process is gone.
        Raises UnknownSession, UnknownNode.
        """
        values = {"method": method, "hparams": dumps(hparams), "seed": seed, "device": device}
        with self.atomic():
            seq = self._append(session_id, parent, Step("edit", edit_id))
            edits.insert(self._db, seq, edit_id, values, request)
            return self._node(seq)

    def finish_edit(
        self,
        node_id: str,
        *,
        patches: Sequence[PatchRecord],
        tensors: bytes,
        edit: JsonDict,
        before: JsonDict,
        after: JsonDict,
        success: bool,
        verdict: str,
        metrics: Mapping[str, Mapping[str, Any]],
        seconds: Mapping[str, float],
        peak_memory: int,
        versions: JsonDict,
        ledger_hash: str,
    ) -> EditRow:
        """Record an edit that is done; its node becomes the tip.

        The tensor file is on the disk before the row says so. Raises UnknownEdit (no such edit,
        or it ended already), StoreFull and others; then the edit is still running and the call
        can be repeated.
        """
        edit_id = self._unended(node_id).id
        digest = self._blobs.write(tensors)
        values = {
            "seconds": dumps(dict(seconds)),
            "peak_memory": peak_memory,
            "success": success,
            "verdict": clean(verdict),
            "before": dumps(before),
            "after": dumps(after),
            "versions": dumps(versions),
            "body": dumps(edit),
            "tensors": digest,
            "size": len(tensors),
        }
        with self.atomic():
            found = self._unended(node_id)
            self._here(found.session)
            if not self._blobs.has(digest, len(tensors)):  # swept away as an orphan meanwhile
                self._blobs.write(tensors)
            edits.finish(self._db, edit_id, values)
            edits.insert_patches(self._db, edit_id, patches)
            edits.insert_metrics(self._db, edit_id, edits.metric_records(metrics))
            self._db.update("node", "id", node_id, {"ledger_hash": ledger_hash})
            seq = tree.seq_of(self._db, found.session, node_id)
            assert seq is not None, "the edit's node exists"
            self._move(found.session, seq)
            return self.edit(edit_id)

    def fail_edit(self, node_id: str, state: str, error: str) -> EditRow:
        """Record that an edit came to nothing: `state` is failed or cancelled. The tip stays.

        Raises UnknownEdit (no such edit, or it ended already).
        """
        if state not in edits.ENDED:
            raise ValueError(f"an edit ends as one of {', '.join(edits.ENDED)}, not {state!r}")
        with self.atomic():
            found = self._unended(node_id)
            edits.end(self._db, found.id, state, error)
            return self.edit(found.id)

    def _unended(self, node_id: str) -> EditRow:
        """The edit, running; or taken for dead by another process, which was wrong then."""
        found = edits.by_node(self._db, node_id)
        if found.state not in ("running", "interrupted"):
            raise UnknownEdit(f"edit {found.id} has ended already ({found.state}).")
        return found

    def active_edits(self, session_id: str, tip: str | None = None) -> list[EditRow]:
        """The edits active at `tip` (default: the tip), in the order they apply.

        Those that `superseded` names are among them: they stand, but do not act.
        """
        state = tree.state_at(self._db, self._at(session_id, tip))
        return edits.by_ids(self._db, state.active)

    def undone_edits(self, session_id: str, tip: str | None = None) -> list[EditRow]:
        """The edits that redo can put back at `tip`; the next one is last."""
        state = tree.state_at(self._db, self._at(session_id, tip))
        return edits.by_ids(self._db, state.undone)

    def superseded(self, session_id: str, tip: str | None = None) -> dict[str, str]:
        """Which of the active edits at `tip` do not act, and by which each is superseded: ids."""
        active = self.active_edits(session_id, tip)
        return superseded([e.id for e in active], {e.id: e.supersedes for e in active})

    def edit(self, ref: str) -> EditRow:
        """By id, or 4 or more characters from either end of it. Raises UnknownEdit."""
        return edits.by_ids(self._db, [catalog.find_edit(self._db, ref)])[0]

    def edits(self, session_id: str) -> list[EditRow]:
        """All edits of a session, in any state, in the order they were begun."""
        tree.session_tip(self._db, session_id)
        return edits.select(self._db, "node.session = :session", {"session": session_id})

    def costs(
        self, fingerprint: str, device: str, method: str, limit: int = 20
    ) -> list[tuple[float, int]]:
        """(seconds, peak bytes) of the newest edits of one fact of a model, in all sessions."""
        return edits.costs(self._db, fingerprint, device, method, limit)

    def interrupted(self) -> list[EditRow]:
        """Running edits whose process is gone, in all sessions. Each is told once."""
        with self.atomic():
            return edits.by_ids(self._db, edits.mark_interrupted(self._db))

    def tensors(self, edit: EditRow) -> bytes:
        """The tensor file of an edit that is done. Raises UnknownEdit, CorruptTensors."""
        if edit.tensors is None:
            raise UnknownEdit(f"edit {edit.id} has no tensors: it is {edit.state}.")
        return self._blobs.read(edit.tensors)

    # Events

    def add_events(
        self, session_id: str, node_id: str | None, job: str, events: Sequence[JsonDict]
    ) -> None:
        """Append a job's events, as their JSON objects (kind, seq, t, ...).

        Raises UnknownSession, UnknownNode.
        """
        with self.atomic():
            log.add(self._db, session_id, node_id, job, events)

    def events(
        self, session_id: str, job: str | None = None, node: str | None = None
    ) -> list[JsonDict]:
        """What `add_events` was given, in order: all, of one job, or of one node.

        Numbers that are not finite are left encoded, as the engine's `from_json` expects them.
        Raises UnknownSession.
        """
        return log.select(self._db, session_id, job, node)
