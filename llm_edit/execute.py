"""`llm-edit replay --execute`: a recording done again on a live model, and how far it drifts."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import click

from .common import finished, narrator, print_json

if TYPE_CHECKING:
    from engine.events import Event
    from engine.lm import LM
    from tui.executing import Report
    from tui.tape import Tape


def execute(
    tape: Tape,
    source: str,
    *,
    model: str | None,
    dtype: str | None,
    device: str | None,
    tolerance: float,
    verbose: bool,
    as_json: bool,
) -> int:
    """Exit code 0, or 1 when something came out otherwise than recorded.

    model, dtype, device  None for those of the recording (the device: as configured)
    Raises what loading the model raises.
    """
    from engine.placing import check_device, check_dtype
    from engine.worker import Worker
    from tui import drift_report, settings
    from tui.executing import Execution, differences

    configured, _ = settings.load()
    check_dtype(dtype or "auto")
    check_device(device or configured.device)
    began = time.monotonic()
    say = narrator(verbose=verbose)
    worker = Worker()
    try:
        lm = finished(worker.submit("load", lambda: _load(tape, model, dtype, device)), say)
        run = Execution(tape, lm, tolerance=tolerance, max_tokens=configured.max_tokens)
        for line in drift_report.before(differences(tape, lm), run.same_model):
            click.echo(line, err=True)
        report: Report = finished(worker.submit("execute", run.run), say)
    finally:
        worker.close()
    if as_json:
        session = tape.recording.session.id
        seconds = time.monotonic() - began
        print_json(drift_report.as_object(report, session, source, seconds))
    else:
        for line in drift_report.lines(report):
            click.echo(line)
    sys.stdout.flush()
    return 1 if report.drifted else 0


def _load(
    tape: Tape, model: str | None, dtype: str | None, device: str | None
) -> Generator[Event, None, LM]:
    from engine.errors import ModelUnavailable, UnknownName
    from engine.lm import LM
    from tui import settings
    from tui.opening import model_name, where

    recorded = tape.recording.session.model
    configured, _ = settings.load()
    wanted = device or configured.device
    load_in = str(recorded.info.get("load_in", ""))
    try:
        name = model_name(model) if model else where(recorded.name, recorded.source)
        return (
            yield from LM.load(name, dtype=dtype or recorded.dtype, device=wanted, load_in=load_in)
        )
    except (UnknownName, ModelUnavailable) as error:
        if model:
            raise
        message = f"the recorded model {recorded.name!r} cannot be loaded: {error.message}"
        raise ModelUnavailable(message, "Name one that can: --model.") from error
