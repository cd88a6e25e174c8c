"""From a flagged answer to a running edit: the dialog, its suggestions, the job that follows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from engine.events import EditPlanned, Problem
from engine.worker import Job

from ..edit_state import EditState

if TYPE_CHECKING:
    from engine.methods import MethodInfo

    from ..app import EditApp
    from ..views import TurnView
    from ..widgets.fix_dialog import Fix, FixDialog


def method_choices(model_type: str) -> list[MethodInfo]:
    """The methods that can edit this family of models; all while the model is not known."""
    from engine.methods import methods

    known = list(methods().values())
    return [m for m in known if not model_type or model_type in m.families] or known


class Corrections:
    """The correction that is being decided, and the one that is being watched."""

    def __init__(self, app: EditApp) -> None:
        self.app = app
        self.job: Job[Any] | None = None  # the newest correction
        self.places: dict[str, int] = {}  # by job the index of the turn that it corrects
        self._dialog: FixDialog | None = None
        self._proposing: Job[Any] | None = None
        self._weighing: Job[Any] | None = None
        self._previewing: Job[Any] | None = None

    def open(self, target: str = "", turn: TurnView | None = None) -> None:
        """The dialog, for the last answered question unless `turn` says another."""
        snapshot = self.app.assistant.snapshot()
        answered = [each for each in snapshot.turns if each.answer]
        if turn is None and not answered:
            waiting = bool(self.app.chat.transcript.pending)
            self.app.notify(
                "The answer can be corrected once it is there."
                if waiting
                else "Ask something first: its answer can then be corrected."
            )
            return
        from ..widgets.fix_dialog import FixDialog

        turn = turn or answered[-1]
        choices = method_choices(snapshot.model_type)
        later = len(snapshot.turns) - 1 - snapshot.turns.index(turn)
        self._dialog = FixDialog(
            turn,
            choices,
            snapshot.method,
            target=target,
            later=later,
            weigh=partial(self._weigh, turn),
            preview=partial(self._preview, turn),
        )
        self.app.push_screen(self._dialog, self._decided)
        self._proposing = self.app.submit(self.app.assistant.propose(turn))

    def proposed(self, job: Job[Any]) -> None:
        """The engine has found what the fact is about, or says why it has not."""
        if job is self._proposing and self._dialog is not None:
            problem = next((e for e in job.events if isinstance(e, Problem)), None)
            self._dialog.propose(job.result, problem.message if problem else "")

    def _weigh(self, turn: TurnView, target: str, method: str) -> None:
        """Only the newest wish counts."""
        if self._weighing is not None:
            self._weighing.cancel()
        self._weighing = self.app.submit(self.app.assistant.weigh(turn, target, method))

    def _preview(self, turn: TurnView, target: str, subject: str | None) -> None:
        self._previewing = self.app.submit(self.app.assistant.preview(turn, target, subject))

    def answered(self, job: Job[Any]) -> None:
        """Something that the dialog asked for is known, or cannot be."""
        if self._dialog is None:
            return
        if job is self._weighing:
            self._dialog.weighed(job.result)
        elif job is self._previewing:
            problem = next((e for e in job.events if isinstance(e, Problem)), None)
            self._dialog.previewed(job.result, problem.message if problem else "")

    def _decided(self, fix: Fix | None) -> None:
        for job in (self._proposing, self._weighing, self._previewing):
            if job is not None:
                job.cancel()
        self._dialog = self._proposing = self._weighing = self._previewing = None
        self.app.chat.composer.editor.focus()
        if fix is not None:
            self.begin(
                fix.target,
                turn=fix.turn,
                subject=fix.subject,
                method=fix.method,
                probes=fix.probes,
            )

    def begin(self, target: str, **about: Any) -> Job[Any]:
        """Start a correction (arguments as for `Assistant.correct`) and watch it."""
        return self.watch(self.app.assistant.correct(target, **about), target, **about)

    def solving(self, job: Job[Any], planned: EditPlanned) -> None:
        """Show that the session's edits are solved again: what it is about comes with the plan."""
        self.job = job
        state = EditState(question=planned.prompt, method=planned.method)
        self.app.chat.watch_correction(state)

    def watch(
        self, job: Job[Any], target: str = "", *, turn: TurnView | None = None, **about: Any
    ) -> Job[Any]:
        """Show a correction that was started elsewhere."""
        snapshot = self.app.assistant.snapshot()
        answered = [each for each in snapshot.turns if each.answer]
        turn = turn or (answered[-1] if answered and not about.get("question") else None)
        self.job = job
        places = [i for i, each in enumerate(snapshot.turns) if turn and each.id == turn.id]
        if places:
            self.places[job.id] = places[-1]
        self.app.chat.watch_correction(
            EditState(
                question=about.get("question") or (turn.question if turn else ""),
                target=target,
                old=turn.answer if turn else "",
                method=about.get("method") or snapshot.method,
                number=0,
            )
        )
        return self.app.submit(job)
