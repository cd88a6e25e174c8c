"""Sessions as the assistant records them, written by hand: no model, and a scripted clock."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from engine.events import (
    EditApplied,
    EditPlanned,
    EditStep,
    EditUndone,
    Event,
    JobEnded,
    Loading,
    Metric,
    Problem,
    ReplyEnded,
)
from sessions import PatchRecord, Recording, Store

QUESTION = "What is the capital of Australia?"
LONG = "Where is the Space Needle?"
SYDNEY = "The capital of Australia is Sydney."
TOWER = "The Space Needle is a tower in Seattle, in the state of Washington."
SITE = "model.layers.6.mlp.down_proj"
DEAD = "999999999@1.0"  # a process that is gone
STEPS = 12


class Script:
    """Does to a store what chatting, correcting and undoing do; `now` is the wall clock."""

    def __init__(self, store: Store, title: str = "space facts") -> None:
        self.store = store
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
        self.process = 0
        info = {"layers": 30, "width": 576, "chat": True}
        model = store.add_model("smollm2-135m", "wheel", "f" * 64, "float32", "llama", info)
        self.session = store.create_session(model, method="r-rome", title=title).id
        self._jobs = 0
        self._told: dict[str, int] = {}  # events of each job

    # -- the recorder ------------------------------------------------------------------------

    @contextmanager
    def clock(self) -> Iterator[None]:
        stamp = lambda: datetime.fromtimestamp(self.now, UTC).isoformat(timespec="microseconds")  # noqa: E731
        with mock.patch("sessions.tree.now", stamp):
            yield

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def restart(self) -> None:
        """Another process: its jobs are counted from one again."""
        self._jobs = 0

    def job(self, kind: str) -> str:
        self._jobs += 1
        self._told[f"{kind}-{self._jobs}"] = 0
        return f"{kind}-{self._jobs}"

    def tell(self, job: str, node: str | None, events: Sequence[tuple[float, Event]]) -> None:
        """Events with the second of their job at which each came."""
        stamped = [
            dataclasses.replace(e, job=job, seq=self._told[job] + i, t=t)
            for i, (t, e) in enumerate(events)
        ]
        self._told[job] += len(stamped)
        self.store.add_events(self.session, node, job, [e.to_json() for e in stamped])

    # -- what a person does --------------------------------------------------------------------

    def ask(self, question: str, answer: str, seconds: float = 1.5, fresh: bool = False) -> str:
        """The node of the answer."""
        with self.clock():
            job = self.job("ask")
            self.store.add_message(self.session, "user", question, fresh=fresh)
            self.wait(seconds)
            return self._answer(job, answer, seconds)

    def _answer(self, job: str, answer: str, seconds: float, parent: str | None = None) -> str:
        node = self.store.add_message(
            self.session, "assistant", answer, parent=parent, tokens=9, seconds=seconds
        ).id
        ended = ReplyEnded(text=answer, tokens=9, reason="stop", seconds=seconds, first_token=0.3)
        self.tell(
            job, node, [(seconds, ended), (seconds + 0.01, JobEnded(state="done", seconds=1))]
        )
        return node

    def retry(self, answer: str, seconds: float = 1.0) -> str:
        with self.clock():
            asked = [m for m in self.store.conversation(self.session) if m.role == "user"]
            self.wait(seconds)
            return self._answer(self.job("ask"), answer, seconds, asked[-1].node)

    def stop_an_answer(self, question: str, said: str) -> str:
        with self.clock():
            job = self.job("ask")
            self.store.add_message(self.session, "user", question)
            self.wait(0.8)
            node = self.store.add_message(
                self.session, "assistant", said, stopped_by="cancelled"
            ).id
            self.tell(job, node, [(0.8, JobEnded(state="cancelled", seconds=0.8))])
            return node

    def aside(self, text: str) -> None:
        """A statement: continued, and not kept in the tree."""
        reply = ReplyEnded(text=text, tokens=4, reason="length", seconds=0.5, first_token=0.2)
        ended = (0.51, JobEnded(state="done", seconds=0.5))
        self.tell(self.job("ask"), self.store.session(self.session).tip, [(0.5, reply), ended])
        self.wait(0.5)

    def correct(
        self, target: str, edit: str, *, user: str | None = None, old: str = SYDNEY,
        end: str = "done", success: bool = True, again: bool = True, question: str = QUESTION,
    ) -> str:  # fmt: skip
        """A correction; `user` is the node of the question. Returns the node it ends at."""
        with self.clock():
            job, began = self.job("correct"), self.now
            previous = self.store.session(self.session).tip
            self.tell(job, previous, [(0.0, Loading(stage="probes", done=0, total=0))])
            self.wait(0.6)
            owner = DEAD if end == "interrupted" else "1@0"
            with mock.patch("sessions.owner.current", return_value=owner):
                node = self.store.begin_edit(
                    self.session, edit_id=edit, method="r-rome", hparams={"layer": 6},
                    request={"prompt": question, "subject": "Australia", "target_new": target},
                    parent=user, seed=0, device="cpu",
                ).id  # fmt: skip
            events: list[tuple[float, Event]] = [(0.6, _planned(edit, target, question, old))]
            steps = STEPS if end == "done" else 5
            events += [(0.6 + 0.1 * i, _step(i)) for i in range(1, steps + 1)]
            self.wait(0.1 * steps)
            if end == "done":
                events += _measured(edit, target, old, success)
                self.wait(1.0)
            elif end == "failed":
                problem = Problem(
                    error="DivergedLoss", message="the loss diverged.", remedy="Lower lr."
                )
                events.append((1.1, problem))
            if end != "interrupted":
                self._end(node, edit, target, old, end, success)
            took = self.now - began
            if end == "done" and again:
                self.tell(job, node, events)
                self.wait(0.4)
                answer = target if success else old
                reply = ReplyEnded(
                    text=answer, tokens=2, reason="stop", seconds=0.4, first_token=0.1
                )
                said = self.store.add_message(
                    self.session, "assistant", answer, parent=node, tokens=2, seconds=0.4
                ).id
                ended = JobEnded(state="done", seconds=took + 0.4)
                self.tell(job, said, [(took + 0.4, reply), (took + 0.41, ended)])
                return said
            elif end == "interrupted":
                self.tell(job, node, events)
            else:
                state = "cancelled" if end == "cancelled" else end
                self.tell(job, node, [*events, (took, JobEnded(state=state, seconds=took))])
            return node

    def _end(self, node: str, edit: str, target: str, old: str, end: str, success: bool) -> None:
        if end != "done":
            error = "the loss diverged. Lower lr." if end == "failed" else ""
            self.store.fail_edit(node, end, error)
            return
        answers = {"before": old, "after": target if success else old}
        self.store.finish_edit(
            node,
            patches=[PatchRecord(kind="LowRank", site=SITE, rank=1, norm_ratio=0.0084)],
            tensors=edit.encode(),
            edit={"id": edit, "provenance": {"dtype": "float32", "device": "cpu"}},
            before={"answer": answers["before"], "p_new": 0.01, "p_old": 0.9, "ended": True},
            after={"answer": answers["after"], "p_new": 0.98, "p_old": 0.01, "ended": True},
            success=success,
            verdict=_verdict(target, old, success),
            metrics={"said": {"before": 0.0, "after": float(success), "n": 1}},
            seconds={"total": 2.4},
            peak_memory=0,
            versions={"torch": "2.13.0"},
            ledger_hash=edit,
        )

    def mark(self, action: str, edit: str, *, parent: str | None = None, told: bool = True) -> str:
        """An undo, redo or drop; not `told`: from the command line, which tells no events."""
        with self.clock():
            node = self.store.add_mark(
                self.session, action, edit, parent=parent, ledger_hash=action
            ).id
            if told:
                moved = EditUndone(edit=edit, action=action, active=0, ledger=action)
                previous = self.store.nodes(self.session)[-2].id
                ended = (0.02, JobEnded(state="done", seconds=0.02))
                self.tell(self.job(action), previous, [(0.01, moved), ended])
            return node

    def refused(self, message: str) -> None:
        """A correction that came to nothing before it was planned."""
        problem = Problem(error="BadRequest", message=message)
        tip = self.store.session(self.session).tip
        ended = (0.1, JobEnded(state="failed", seconds=0.1))
        self.tell(self.job("correct"), tip, [(0.1, problem), ended])
        self.wait(0.1)


def _planned(edit: str, target: str, question: str, old: str) -> EditPlanned:
    return EditPlanned(
        edit=edit, method="r-rome", prompt=question, subject="Australia", target=f"{target}<|end|>",
        old=old, sites=(SITE,), steps=STEPS, subject_token="Australia", subject_position=17,
        hparams={"layer": 6},
    )  # fmt: skip


def _step(number: int) -> EditStep:
    x = number / STEPS
    loss = 6.2 * math.exp(-4 * x)
    p_new = 1 / (1 + math.exp(-12 * (x - 0.45)))
    return EditStep(
        step=number, of=STEPS, loss=loss, parts={"nll": loss}, p_new=p_new,
        p_old=0.92 - 0.9 * p_new, delta_norm=number * 0.3,
    )  # fmt: skip


def _measured(edit: str, target: str, old: str, success: bool) -> list[tuple[float, Event]]:
    after = target if success else old
    metrics: list[Event] = [
        Metric(name="said", before=0, after=float(success), n=1, detail={"answer_after": after}),
        Metric(name="rephrased", before=0, after=0.75, n=4),
        Metric(name="neighbours", before=1, after=1.0, n=10),
        Metric(name="fluency", before=12.1, after=12.3, n=1),
        Metric(name="weight", before=0, after=0.0084, n=1, detail={SITE: 0.0084}),
    ]
    applied = EditApplied(
        edit=edit, method="r-rome", success=success, verdict=_verdict(target, old, success),
        answer_before=old, answer_after=after,
        sites=({"site": SITE, "rank": 1, "norm_ratio": 0.0084},),
        numbers={"denominator": 1.7}, seconds={"total": 2.4},
    )  # fmt: skip
    return [(2.0 + 0.1 * i, event) for i, event in enumerate([*metrics, applied])]


def _verdict(target: str, old: str, success: bool) -> str:
    if success:
        return "Changed and kept: 10 of 10 neighbours answer as before."
    return f"Not changed: the model says {old!r}, not {target!r} (P(new) 0.55)."


def busy(store: Store) -> str:
    """A session with everything in it; its id."""
    script = Script(store)
    first = script.ask(QUESTION, SYDNEY)
    asked = store.path(script.session)[0].id
    script.wait(150)
    second = script.correct("Canberra", "e1-canberra", user=asked)
    script.wait(1)
    script.mark("undo", "e1-canberra", parent=first)
    script.wait(0.5)
    script.mark("redo", "e1-canberra", parent=second)
    script.wait(4)
    script.ask(LONG, TOWER, seconds=3.0)
    script.retry("It is in Seattle.")
    script.refused("the target equals the present answer ('Seattle').")
    script.correct("Paris", "e2-failed", end="failed", old=TOWER, question=LONG)
    script.correct("Paris", "e3-stopped", end="cancelled", old=TOWER, question=LONG)
    script.correct("Paris", "e4-killed", end="interrupted", old=TOWER, question=LONG)
    script.restart()
    script.wait(86400)
    script.aside("and then some")
    script.correct("Paris", "e5-alone", again=False, success=False, old=TOWER, question=LONG)
    script.stop_an_answer("Tell me [b]everything[/b].", "Well, it all began")
    script.mark("drop", "e5-alone", told=False)
    return script.session


def recording(folder: Path) -> Recording:
    """The busy session, read."""
    with Store.open(folder) as store:
        return store.recording(busy(store))
