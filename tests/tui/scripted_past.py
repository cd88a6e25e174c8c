"""The scripted assistant's past: timeline, branches, other sessions, comparisons. No model."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path

from engine.compare import Reading
from engine.errors import BadInput
from engine.events import Event, Loading
from engine.worker import Worker
from sessions.rows import Hit, ModelRow, SessionRow
from tui.compare import CompareRow, CompareView, Prompt
from tui.states import StateView
from tui.tree import NodeView, Timeline
from tui.views import EditView, Moved, TurnView, UndoPlan

MODEL = ModelRow(1, "smollm2-135m", "wheel", "f" * 64, "float32", "llama", {})
OTHER = ModelRow(2, "gpt2", "hub", "e" * 64, "float32", "gpt2", {})
ELSEWHERE = {"01A": ("rivers and lakes", MODEL, 2, 1), "01B": ("", OTHER, 8, 0)}
WORDS = ("The", " The", "Can", " Can", "Sydney", " Sydney", "It", " It", "A", "\n", "<|im_end|>")


def row(id: str, title: str, model: ModelRow, messages: int, edits: int) -> SessionRow:
    return SessionRow(
        id, title, model, "r-rome", None, "2026-11-20T10:00:00", "2026-11-20T10:30:00", None,
        "open", messages, edits,
    )  # fmt: skip


class ScriptedArchive:
    """The public face of `tui.archive.Archive`."""

    def __init__(self, of, on_change=None) -> None:
        self.of = of
        self.gone: set[str] = set()
        self.titles: dict[str, str] = {}
        self.worker = Worker(on_change)

    def sessions(self):
        return self._submit("sessions", self._rows)

    def search(self, text: str):
        def hits() -> list[Hit]:
            self.of.calls.append(("search", text))
            found = [
                Hit("01J", "space facts", turn.asked, "question", turn.question, turn.question, "")
                for turn in self.of.turns
                if text.lower() in turn.question.lower()
            ]
            if text.lower() in "the danube":
                found.append(Hit("01A", "rivers and lakes", "r0", "answer", "", "The Danube", ""))
            return found

        return self._submit("search", hits)

    def timeline(self, session: str):
        return self._submit("timeline", lambda: self._timeline(session))

    def rename(self, session: str, title: str):
        def work() -> str:
            self.titles[session] = title
            return title

        return self._submit("retitle", work)

    def delete(self, session: str):
        def work() -> str:
            self.of.calls.append(("delete", session))
            self.gone.add(session)
            return session

        return self._submit("delete", work)

    def export(self, session: str, path: Path):
        def work() -> Path:
            self.of.calls.append(("export", session, str(path)))
            return path

        return self._submit("export", work)

    def close(self, timeout: float = 2.0) -> None:
        self.worker.close(timeout)

    def _submit(self, kind, make):
        def run() -> Generator[Event, None, object]:
            yield from ()
            return make()

        return self.worker.submit(kind, run)

    def _rows(self) -> list[SessionRow]:
        active = sum(1 for e in self.of.edits if e.state == "applied")
        own = row("01J", self.of.title, MODEL, 2 * len(self.of.turns), active)
        others = [
            row(id, self.titles.get(id, title), *rest)
            for id, (title, *rest) in ELSEWHERE.items()
            if id not in self.gone
        ]
        return [own, *others]

    def _timeline(self, session: str) -> Timeline:
        if session == "01J":
            return Timeline(
                session=session, title=self.of.title, model="smollm2-135m", fingerprint="f" * 64,
                nodes=tuple(nodes(self.of.turns, self.of.edits)),
            )  # fmt: skip
        title, model, _, _ = ELSEWHERE[session]
        turn = TurnView(id="r1", asked="r0", question="How long is the Danube?", answer="2,850 km.")
        return Timeline(
            session=session, title=title, model=model.name, fingerprint=model.fingerprint,
            nodes=tuple(nodes([turn], [])),
        )  # fmt: skip


def nodes(turns: list[TurnView], edits: list[EditView]) -> list[NodeView]:
    """What a record of these turns and edits would lay out."""
    found: list[NodeView] = []
    for turn in turns:
        found.append(NodeView(id=turn.asked, kind="user", depth=0, here=True, text=turn.question))
        for edit in (e for e in edits if e.question == turn.question):
            here = edit.state == "applied"
            if here:
                found.append(_answer(f"{edit.id}-b", edit.answer_before, 1, here=False))
            node = NodeView(
                id=edit.id, kind="edit", depth=0 if here else 1, here=here, edit=edit, seconds=2.4
            )
            found.append(node)
            if not here and edit.answer_after:
                found.append(_answer(f"{edit.id}-was", edit.answer_after, 1, here=False))
        found.append(_answer(turn.id, turn.answer, 0, here=True))
        for edit in (e for e in edits if e.question == turn.question and e.state == "undone"):
            found.append(NodeView(id=f"{edit.id}-u", kind="undo", depth=0, here=True, edit=edit))
    if found:
        found[-1] = dataclasses.replace(found[-1], tip=True)
    return found


def _answer(id: str, text: str, depth: int, *, here: bool) -> NodeView:
    return NodeView(id=id, kind="assistant", depth=depth, here=here, text=text)


class ScriptedPast:
    """What `tui.assistant.Assistant` does with the past, on scripted turns and edits."""

    def remember(self, answers: dict[str, str]) -> None:
        """Begin with a corrected question, and one more behind it, as in a resumed session."""
        (first, old), (second, answer) = list(answers.items())[:2]
        self.turns += [
            TurnView(id="e1-a", asked="t0-q", question=first, answer="Canberra", edited_by=1,
                     seconds=0.2),
            TurnView(id="t1", asked="t1-q", question=second, answer=answer, seconds=1.4),
        ]  # fmt: skip
        self.edits.append(
            EditView(
                id="e1", number=1, method="r-rome", subject="Australia", question=first,
                target="Canberra", state="applied", success=True, verdict="Changed.",
                answer_before=old, answer_after="Canberra",
            )
        )  # fmt: skip

    # -- going elsewhere ---------------------------------------------------------------------

    def plan(self, node: str):
        def work() -> Generator[Event, None, UndoPlan]:
            yield from ()
            return self._plan(node)

        return self._submit("plan", work)

    def _plan(self, node: str) -> UndoPlan:
        found = nodes(self.turns, self.edits)
        place = next(i for i, each in enumerate(found) if each.id == node)
        later = {each.edit.id for each in found[place:] if each.kind == "edit" and each.edit}
        active = [e for e in reversed(self.edits) if e.state == "applied" and e.id in later]
        leaving = sum(1 for each in found[place + 1 :] if each.is_message and each.here)
        return UndoPlan(node=node, edits=tuple(active), leaving=leaving)

    def undo_to(self, node: str):
        def work() -> Generator[Event, None, Moved]:
            self.calls.append(("undo_to", node))
            undone = self._plan(node).edits
            for edit in undone:
                yield from self._move("undo", edit.id)
            return self._stands("undo_to", undone)

        return self._submit("undo_to", work)

    def branch(self, node: str):
        def work() -> Generator[Event, None, Moved]:
            yield from ()
            self.calls.append(("branch", node))
            place = next(
                (i for i, turn in enumerate(self.turns) if node in (turn.id, turn.asked)), None
            )
            if place is None:
                raise BadInput(f"there is no message {node!r} in this session.")
            del self.turns[place + 1 :]
            if node == self.turns[-1].asked:
                self.turns[-1] = dataclasses.replace(self.turns[-1], answer="")
            return self._stands("branch")

        return self._submit("branch", work)

    def open(self, session: str):
        def work() -> Generator[Event, None, Moved]:
            yield from ()
            self.calls.append(("open", session))
            if session == "01J":
                return self._stands("open")
            if ELSEWHERE[session][1] is not MODEL:
                raise BadInput(
                    "session 01b was made with another model (gpt2).",
                    "llm-edit chat --session 01b opens it.",
                )
            self.title = ELSEWHERE[session][0]
            self.turns[:] = [TurnView(id="r1", asked="r0", question="How long?", answer="Long.")]
            self.edits.clear()
            return self._stands("open")

        return self._submit("open", work)

    def _stands(self, action: str, undone: tuple[EditView, ...] = ()) -> Moved:
        active = tuple(e for e in self.edits if e.state == "applied")
        return Moved(
            action=action, turns=len(self.turns), active=active, undone=undone, title=self.title,
            answered=not self.turns or bool(self.turns[-1].answer),
        )  # fmt: skip

    # -- comparing ---------------------------------------------------------------------------

    def states(self):
        def work() -> Generator[Event, None, tuple[StateView, ...]]:
            yield from ()
            edits = [self._state(f"#{e.number}") for e in self.edits]
            return (self._state("unedited"), *edits, self._state("now"))

        return self._submit("states", work)

    def _state(self, ref: str) -> StateView:
        active = tuple(e.id for e in self.edits if e.state == "applied")
        if ref == "unedited":
            return StateView(ref, "the unedited model")
        if ref == "now":
            return StateView(ref, f"now ({len(active)} edit{'s' * (len(active) != 1)})", active)
        edit = next((e for e in self.edits if f"#{e.number}" == ref), None)
        label = f"after edit {ref}: {edit.subject} → {edit.target}" if edit else f"session {ref}"
        return StateView(ref, label, (ref,))

    def compare(self, a: str, b: str, prompts=()):
        self.calls.append(("compare", a, b, tuple(prompts)))

        def work() -> Generator[Event, None, CompareView]:
            job = self.worker.current
            states = self._state(a), self._state(b)
            asked = self._asked() if states[0].edits != states[1].edits else []
            asked += [Prompt("free", text) for text in prompts]
            view = CompareView(*states, tuple(map(CompareRow, asked)))
            for place, prompt in enumerate(asked):
                for side, state in zip("ab", states, strict=True):
                    self._pass("compare", 0.1)
                    rows = list(view.rows)
                    rows[place] = rows[place].read(side, self._reading(prompt, state))
                    view = dataclasses.replace(view, rows=tuple(rows))
                    job.result = view
                    yield Loading(stage="compare", done=place + 1, total=len(asked))
            return view

        return self._submit("compare", work)

    def _asked(self) -> list[Prompt]:
        edit = self.edits[-1]
        return [
            Prompt("asked", edit.question),
            Prompt("rephrased", f"Tell me, please: {edit.question}"),
            Prompt("neighbour", edit.question.replace("Australia", "Austria")),
            Prompt("neighbour", "How many days are there in a week?"),
        ]

    def _reading(self, prompt: Prompt, state: StateView) -> Reading:
        if prompt.kind == "neighbour":
            answer = "There are [b]seven[/b] days in a week."
        elif state.edits and prompt.kind != "free":
            answer = self.edits[-1].target
        else:
            answer = self._answer(self.edits[-1].question if self.edits else "")
            answer = "The capital of Australia is Sydney." if self.edits else answer
        shift = 3 if state.edits and prompt.kind != "neighbour" else 0
        words = [*WORDS[shift:], *WORDS[:shift]][:10]
        return Reading(answer, tuple((w, 0.5 / 2**i) for i, w in enumerate(words)))
