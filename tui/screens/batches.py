"""Batches of corrections in the full screen: what runs, and the screen that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import BadInput

if TYPE_CHECKING:
    from engine.worker import Job

    from ..app import EditApp
    from ..batch import Batch
    from .batch import BatchScreen


class Batches:
    """The batch that runs, or ran last, and its screen."""

    def __init__(self, app: EditApp) -> None:
        self.app = app
        self.batch: Batch | None = None
        self._screen: BatchScreen | None = None  # the one that was opened last

    def begin(self, batch: Batch | None) -> None:
        """Start a batch and show it. One that runs is shown instead, or where there is no new one.

        Raises BadInput when there is none at all.
        """
        if batch is not None and self.running:
            self.app.notify(f"{self.running.name} is not finished: one file at a time.")
        elif batch is not None:
            self.batch = batch
            self._next()
        if self.batch is None:
            from ..batch import NO_BATCH

            raise BadInput(*NO_BATCH)
        from .batch import BatchScreen

        self._screen = BatchScreen(self.batch)
        self.app.push_screen(self._screen)

    @property
    def running(self) -> Batch | None:
        """The batch, while some of its facts wait or are being edited."""
        return self.batch if self.batch is not None and not self.batch.finished else None

    def _next(self) -> None:
        assert self.batch is not None
        job = self.batch.begin_next(self.app.assistant)
        if job is not None:
            self.app.corrections.watch(job, self.batch.target, question=self.batch.question)
        else:
            self.app.say(self.batch.summary(), self.batch.tone)

    def owns(self, job: Job[Any]) -> bool:
        return self.batch is not None and self.batch.job is job

    def ended(self, job: Job[Any]) -> None:
        """A correction of the batch has ended: the next one."""
        assert self.batch is not None
        self.batch.ended(job)
        self._next()
        if self._screen is not None and self.app.screen is self._screen:
            self._screen.draw()
