"""The turns of a session, read off the tree of what was said and edited.

A correction of the question U is an edit node E under U, and the question's new answer is a
message under E: the sibling of the old answer. Undo goes back to where the tip was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessions.fold import superseded
from sessions.rows import EditRow, Message, Node

from .views import EditView, TurnView

if TYPE_CHECKING:
    from sessions.store import Store


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and its answer.

    user, node  nodes of question and answer; "" where they could not be recorded
    edit        id of the edit after which the question was asked again, or ""
    fresh       asked as the first question of a conversation
    statement   a text that was continued, outside of the conversation and its record
    """

    question: str
    answer: str = ""
    user: str = ""
    node: str = ""
    edit: str = ""
    fresh: bool = False
    statement: bool = False
    seconds: float = 0.0
    stopped: str = ""

    def view(self, id: str, numbers: dict[str, int]) -> TurnView:
        return TurnView(
            id=id,
            question=self.question,
            answer=self.answer,
            edited_by=numbers.get(self.edit, 0),
            seconds=self.seconds,
            stopped=self.stopped,
            statement=self.statement,
            asked=self.user,
        )


def history(turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """The (question, answer) pairs that the next question is asked behind."""
    pairs: list[tuple[str, str]] = []
    for turn in turns:
        if turn.fresh:
            pairs.clear()
        if turn.answer and not turn.statement:
            pairs.append((turn.question, turn.answer))
    return tuple(pairs)


def turns_at(store: Store, session: str, tip: str | None = None) -> list[Turn]:
    """The turns on the way from the root to `tip` (default: the session's tip)."""
    messages = {m.node: m for m in store.conversation(session, tip)}
    return turns_on(store.path(session, tip), messages)


def turns_on(path: Sequence[Node], messages: Mapping[str, Message]) -> list[Turn]:
    """The turns on a way from the root; `messages` by node."""
    turns: list[Turn] = []
    edit = ""
    for node in path:
        message = messages.get(node.id)
        if node.kind == "edit":
            edit = node.target or ""
        elif message is not None and message.role == "user":
            turns.append(Turn(question=message.text, user=node.id, fresh=message.fresh))
            edit = ""
        elif message is not None and turns:
            turns[-1] = dataclasses.replace(
                turns[-1],
                answer=message.text,
                node=node.id,
                edit=edit,
                seconds=message.seconds,
                stopped=message.stopped_by,
            )
    return turns


@dataclass(frozen=True)
class Around:
    """Where the tip stood just before an edit, and the answer given just after it (or None)."""

    before: str | None
    after: str | None


def around(store: Store, session: str, edit: EditRow) -> Around:
    """The two sides of an edit; the tree only grows, so its order tells them."""
    nodes = store.nodes(session)
    done = {e.node for e in store.edits(session) if e.state == "done"}
    place = next(i for i, node in enumerate(nodes) if node.id == edit.node)
    before = next((n.id for n in reversed(nodes[:place]) if _was_tip(n, done)), None)
    return Around(before, next(_answers(store, session, nodes[place:], edit.node), None))


def _answers(store: Store, session: str, nodes: Sequence[Node], under: str) -> Iterator[str]:
    """Answers right under a node (after an edit of no turn, the next question hangs there)."""
    for node in nodes:
        if node.kind == "message" and node.parent == under:
            said = store.conversation(session, node.id)[-1]
            if said.role == "assistant":
                yield node.id


def mark(
    store: Store, session: str, action: str, edit_id: str, ledger_hash: str, turns: list[Turn]
) -> list[Turn]:
    """Record an undo, redo or drop; the turns that stand at the new tip.

    When nothing was said since, the tip goes back to the other side of the edit: after an undo
    to the old answer, after a redo to the new one. Otherwise it stays.
    """
    sides = around(store, session, store.edit(edit_id))
    here, there = (sides.after, sides.before) if action != "redo" else (sides.before, sides.after)
    parent = None
    if sides.after is not None and there is not None and _same(turns, store, session, here):
        parent = there
    store.add_mark(session, action, edit_id, parent=parent, ledger_hash=ledger_hash)
    return turns_at(store, session) if parent else turns


def _same(turns: list[Turn], store: Store, session: str, tip: str | None) -> bool:
    """Whether these recorded turns are those at `tip`."""
    shown = [t.node for t in turns if not t.statement]
    return shown == [t.node for t in turns_at(store, session, tip)]


def _was_tip(node: Node, done: set[str]) -> bool:
    return node.kind not in ("edit", "carry") or node.id in done


def edit_views(
    rows: Sequence[EditRow], active: Sequence[str], undone: Collection[str] | None = None
) -> tuple[EditView, ...]:
    """All edits of a session, numbered in the order they were begun.

    active  those in force, superseded ones among them, in the order they apply
    undone  those that were taken off at some time; None takes all that are not active for them
    """
    numbers = {row.id: number for number, row in enumerate(rows, start=1)}
    replaced = superseded(active, {row.id: row.supersedes for row in rows})
    by = {old: numbers[new] for old, new in replaced.items()}
    return tuple(
        _edit_view(row, numbers[row.id], active, undone, by.get(row.id, 0)) for row in rows
    )


def _edit_view(
    row: EditRow, number: int, active: Collection[str], undone: Collection[str] | None, by: int
) -> EditView:
    state = row.state
    if state == "done":
        gone = "undone" if undone is None or row.id in undone else "elsewhere"
        state = "superseded" if by else "applied" if row.id in active else gone
    return EditView(
        id=row.id,
        number=number,
        method=row.method,
        subject=row.request.get("subject") or "",
        question=row.request.get("prompt", ""),
        target=row.request.get("target_new", ""),
        state=state,
        success=bool(row.success),
        verdict=row.verdict,
        answer_before=row.before.get("answer", ""),
        answer_after=row.after.get("answer", ""),
        superseded_by=by,
    )
