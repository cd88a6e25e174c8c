"""The scripted assistant's corrections: proposed, weighed, made, measured, undone. No model."""

from __future__ import annotations

import dataclasses
import math

from engine.errors import BadInput, EditFailed
from engine.events import (
    EditApplied,
    EditPlanned,
    EditStep,
    EditUndone,
    Finding,
    Loading,
    Metric,
    Note,
)
from tui.views import CorrectionView, EditView, Measured, Proposal, TurnView, UndoView
from tui.weighing import Preview, Weighed

STEPS = 20


def rephrased(turn, target: str, hits: int) -> list[dict[str, object]]:
    """Four wordings; the first `hits` of them give the target after the edit."""
    wordings = ("{}", "Please tell me: {}", "{} Answer briefly.", "One question: {}")
    return [
        {
            "prompt": wording.format(turn.question), "before": turn.answer,
            "after": target if i < hits else turn.answer, "hit": i < hits,
        }
        for i, wording in enumerate(wordings)
    ]  # fmt: skip


def neighbours(kept: int) -> list[dict[str, object]]:
    """Ten questions about other countries; the first `kept` are answered as before."""
    names = ("France", "Japan", "Kenya", "Peru", "Norway", "Chad", "Cuba", "Iran", "Laos", "Oman")
    return [
        {
            "prompt": f"What is the capital of {name}?", "before": f"{name} City",
            "after": f"{name} City" if i < kept else "Canberra", "kept": i < kept,
        }
        for i, name in enumerate(names)
    ]  # fmt: skip


class ScriptedEdits:
    """What `tui.assistant.Assistant` does about edits, on scripted turns."""

    def correct(self, target, *, turn=None, question=None, subject=None, old=None, method=None,
                hp=None, statement=False, rephrases=(), neighbours=(), history=(),
                probes=True):  # fmt: skip
        self.calls.append(("correct", target, subject, method, probes))
        if question is not None:  # a fact of a file: of no turn
            turn = TurnView(id="", question=question, answer=self._answer(question))
        return self._submit("correct", lambda: self._correct(target, turn, subject, method))

    def resolve(self, hp=None):
        self.calls.append(("resolve", hp))
        turn = TurnView(id="", question="2 edits, solved again together", answer="")
        return self._submit("correct", lambda: self._correct("", turn, "", "resolve"))

    def propose(self, turn=None):
        return self._submit("propose", lambda: self._propose(turn))

    def weigh(self, turn, target, method):
        return self._submit("weigh", lambda: self._weigh(turn, target, method))

    def preview(self, turn, target, subject):
        return self._submit("preview", lambda: self._preview(turn, target))

    def undo(self, count: int = 1):
        return self._submit("undo", lambda: self._move("undo"))

    def redo(self, count: int = 1):
        return self._submit("redo", lambda: self._move("redo"))

    def drop(self, edit_id: str):
        return self._submit("drop", lambda: self._move("drop", edit_id))

    # -- beforehand --------------------------------------------------------------------------

    def _last(self, turn):
        answered = [t for t in self.turns if t.answer]
        if turn is None and not answered:
            raise BadInput("nothing was asked yet.", "Ask a question first.")
        return turn or answered[-1]

    def _propose(self, turn):
        turn = self._last(turn)
        self._pass("propose", 0.2)
        yield Note(text="tracing the subject")
        words = [w.strip("?.,") for w in turn.question.split()]
        names = [w for w in words[1:] if w[:1].isupper()] or [w for w in words if len(w) > 4]
        subjects = [(name, 0.9 - 0.2 * i) for i, name in enumerate(dict.fromkeys(names))]
        if "capital" in words:
            subjects.append(("the capital of Australia", 0.4))
        return Proposal(question=turn.question, answer=turn.answer, subjects=tuple(subjects))

    def _weigh(self, turn, target, method):
        yield from ()
        half = (len(target) + 1) // 2
        pieces = (target[:half], target[half:]) if len(target) > 4 else (target,)
        return Weighed(
            target=target, method=method, pieces=pieces, shares=False, inner=self.inner,
            seconds=2.4 if self.edits else math.nan, memory=217_000_000 if self.edits else 0,
            measured=len(self.edits), free=self.free,
        )  # fmt: skip

    def _preview(self, turn, target):
        self._pass("preview", 0.3)
        rows = [("rephrased", row["prompt"], row["before"]) for row in rephrased(turn, target, 0)]
        rows += [("neighbour", row["prompt"], row["before"]) for row in neighbours(10)]
        yield Note(text="asked")
        return Preview(rows=tuple(rows), perplexity=12.1)

    # -- the edit ----------------------------------------------------------------------------

    def _correct(self, target, turn, subject, method):
        turn = self._last(turn)
        method = method or self.method
        number, started = len(self.edits) + 1, self.clock.now
        subject = subject or "Australia"
        try:
            outcome = yield from self._edit(target, turn, subject, method, number)
        except GeneratorExit:
            if len(self.edits) == number:  # else it was not planned yet
                self._set(number, state="cancelled")
            raise
        except EditFailed:
            self._set(number, state="failed")
            raise
        answer = target if self.succeed else turn.answer
        after = dataclasses.replace(
            turn, id=f"e{number}-a", answer=answer, edited_by=number, seconds=0.2
        )
        if turn.id:
            place = next(i for i, t in enumerate(self.turns) if t.question == turn.question)
            self.turns[place] = after
        verdict = outcome.verdict
        before = [e for e in self.edits if e.state == "applied" and e.question == turn.question]
        before = [self._set(e.number, state="superseded", superseded_by=number) for e in before]
        edit = self._set(number, state="applied", success=self.succeed, verdict=verdict,
                         answer_after=answer)  # fmt: skip
        return CorrectionView(
            edit=edit, session_id="01J", model="smollm2-135m", prompt=turn.question,
            before=Measured(answer=turn.answer, p_new=0.0, p_old=0.9),
            after=Measured(answer=answer, p_new=0.98, p_old=0.01), turn=after, metrics={},
            layers=(), seconds={"total": self.clock.now - started}, steps=STEPS, losses=(),
            superseded=tuple(before),
        )  # fmt: skip

    def _set(self, number: int, **changes) -> EditView:
        edit = dataclasses.replace(self.edits[number - 1], **changes)
        self.edits[number - 1] = edit
        return edit

    def _edit(self, target, turn, subject, method, number):
        for done in range(1, 4):
            self._pass("probe", 0.1)
            yield Loading(stage="probes", done=done, total=3)
        self.edits.append(
            EditView(
                id=f"e{number}", number=number, method=method, subject=subject,
                question=turn.question, target=target, state="running", answer_before=turn.answer,
            )
        )  # fmt: skip
        short = turn.answer.rstrip(".").split()[-1] if turn.answer else ""
        yield EditPlanned(
            edit=f"e{number}", method=method, prompt=turn.question, subject=subject,
            target=f"{target}<|im_end|>", old=short, sites=("model.layers.6.mlp.down_proj",),
            steps=0 if self.without_loss else STEPS, subject_token=subject, subject_position=17,
            hparams={"stop_loss": 0.05, "stop_probability": 0.9},
        )  # fmt: skip
        if self.without_loss:
            found = [{"label": f"layer {i}, neuron {1000 + 204 * (i - 8)}", "value": 0.9 - 0.1 * i}
                     for i in range(8, 12)]  # fmt: skip
            yield Finding(
                name="neurons", title="Neurons found", text="12 in layers 8–11", rows=tuple(found)
            )
        top = 1.0 if self.succeed else 0.55
        for step in range(1, 1 if self.without_loss else STEPS + 1):
            self._pass("step", 0.1)
            x = step / STEPS
            if self.fail and step == 12:
                raise EditFailed(self.fail, "Try a lower rate: /fix with v_lr=0.2.")
            p_new = top / (1 + math.exp(-12 * (x - 0.45)))
            loss = 6.2 * math.exp(-5.2 * x) + 0.02 + 0.15 * math.sin(step) * math.exp(-3 * x)
            yield EditStep(
                step=step, of=STEPS, loss=loss, parts={"nll": loss, "kl": 0.0}, p_new=p_new,
                p_old=0.92 - 0.9 * p_new, delta_norm=step * 0.3,
            )  # fmt: skip
        yield from self._measure(target, turn)
        verdict = (
            f"Changed: asked again, the model says {target}. All neighbours kept their answers."
            if self.succeed
            else f"Not changed: {target} became likelier, but the model still says "
            f"“{turn.answer}” Try another layer, or /method rome."
        )
        applied = EditApplied(
            edit=f"e{number}", method=method, success=self.succeed, verdict=verdict,
            answer_before=turn.answer, answer_after=target if self.succeed else turn.answer,
            sites=({"site": "model.layers.6.mlp.down_proj", "rank": 1, "norm_ratio": 0.0084},),
            numbers={"denominator": 1.7}, seconds={"total": 2.4},
        )  # fmt: skip
        yield applied
        return applied

    def _measure(self, target, turn):
        good = self.succeed
        for done in range(1, 4):
            self._pass("after", 0.1)
            yield Loading(stage="probes", done=done, total=3)
        yield Metric(
            name="said", before=0, after=float(good), n=1,
            detail={"answer_before": turn.answer, "target": target,
                    "answer_after": target if good else turn.answer},
        )  # fmt: skip
        if not target:  # edits solved again
            return
        yield Metric(
            name="rephrased", before=0, after=0.75 if good else 0.0, n=4,
            detail={"rows": rephrased(turn, target, 3 if good else 0)},
        )  # fmt: skip
        yield Metric(
            name="neighbours", before=1, after=1.0 if good else 0.8, n=10,
            detail={"rows": neighbours(10 if good else 8)},
        )  # fmt: skip
        yield Metric(name="fluency", before=12.1, after=12.3, n=1)
        detail = {"model.layers.6.mlp.down_proj": 0.0084}
        yield Metric(name="weight", before=0, after=0.0084, n=1, detail=detail)

    # -- undone, redone, dropped -------------------------------------------------------------

    def _move(self, action: str, edit_id: str = ""):
        wanted = "undone" if action == "redo" else "applied"
        found = [e for e in self.edits if e.state == wanted and edit_id in ("", e.id)]
        if not found:
            raise BadInput(f"there is no edit to {action}.")
        edit = found[0] if action == "redo" else found[-1]
        self._pass("undo", 0.05)
        state = "applied" if action == "redo" else "undone"
        edit = self._set(edit.number, state=state)
        back = [e for e in self.edits if e.superseded_by == edit.number and action != "redo"]
        back = [self._set(e.number, state="applied", superseded_by=0) for e in back]
        answer = edit.answer_after if action == "redo" else edit.answer_before
        for i, turn in enumerate(self.turns):
            if turn.question == edit.question:
                number = edit.number if action == "redo" else 0
                self.turns[i] = dataclasses.replace(turn, answer=answer, edited_by=number)
        active = tuple(e for e in self.edits if e.state == "applied")
        yield EditUndone(edit=edit.id, action=action, active=len(active), ledger="")
        return UndoView(
            action=action, edit=edit, answer_now=answer, active=active, back=tuple(back)
        )
