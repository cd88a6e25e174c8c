"""`llm-edit edit`: correct a model without a conversation."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import AlreadySaid
from tui.batch import begin, facts_of, groups
from tui.console import printable
from tui.wording import superseding

from .checking import check
from .common import (
    assistant_options,
    finished,
    narrator,
    opened,
    options,
    print_event,
    print_json,
)

if TYPE_CHECKING:
    from engine.requests import Fact, Request
    from tui.views import CorrectionView, FactView


@click.command()
@click.argument("prompt", required=False)
@click.option("--target", help="The answer that the model should give.")
@click.option("--subject", help="The words of PROMPT that the fact is about.")
@click.option("--old", help="The present or true answer, where it is known.")
@click.option("--rephrase", "rephrases", multiple=True, help="The same question otherwise.")
@click.option("--neighbour", "neighbours", multiple=True, help="A prompt that must not change.")
@click.option("--chat/--statement", "chat", default=None, help="Ask PROMPT, or continue it.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Facts as JSON Lines.")
@click.option("--one-by-one", is_flag=True, help="An edit for each fact of the file.")
@click.option("--probes/--no-probes", default=True, help="Measure what else changes.")
@options("model", "session")
@click.option("--events", is_flag=True, help="Every event as JSON Lines on stdout.")
@click.option("--verbose", is_flag=True, help="The whole log, on stderr.")
def edit(
    prompt: str | None,
    path: Path | None,
    chat: bool | None,
    one_by_one: bool,
    probes: bool,
    events: bool,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Change what a model answers to PROMPT.

    The edit is kept in the session (by default the latest one of the model, or a new one) and
    undone with `llm-edit undo`. PROMPT is continued as it stands, or asked as a question when it
    ends with a question mark. The facts of a file become one edit where the method edits many at
    once (see `llm-edit methods`), else an edit each. Exit code 0: the model answers as wanted, by
    itself before or by the edit; 1: an edit did not take.
    """
    if events and as_json:
        raise click.UsageError("--events and --json exclude each other.")
    if one_by_one and path is None:
        raise click.UsageError("--one-by-one needs --file.")
    facts = _facts(prompt, path, chat, given)
    wanted = assistant_options(given, reuse=True, prepare=False)
    check(wanted, facts)
    say = narrator(verbose=verbose)
    report = _Report(as_json=as_json, silent=events, many=path is not None)
    with opened(wanted, say) as assistant, report:
        for group in groups(facts, assistant.snapshot().method, one_by_one=one_by_one):
            try:
                job = begin(assistant, group, probes=probes)
                report.edited(finished(job, say, print_event if events else None))
            except AlreadySaid as error:
                report.already(group, error)
            except Exception as error:
                if path is None or getattr(error, "exit_code", 3) == 3:  # the next would fail too
                    raise
                report.refused(group, error)
    return 0 if report.succeeded == report.count else 1


class _Report:
    """What became of the facts: said as it comes, or at the end as one JSON object.

    A file's object is printed even if the work is interrupted, and says so.
    """

    def __init__(self, *, as_json: bool, silent: bool, many: bool) -> None:
        self.count = self.succeeded = 0
        self._as_json, self._silent, self._many = as_json, silent, many
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if not self._as_json or (kind is not None and not self._many):
            return
        if not self._many:
            print_json(self._rows[0])
            return
        interrupted = {"interrupted": True} if kind is not None else {}
        counts = {"n": self.count, "succeeded": self.succeeded}
        print_json({"edits": self._rows, **counts, **interrupted})

    def edited(self, view: CorrectionView) -> None:
        self.count += len(view.facts) or 1
        self.succeeded += _took(view)
        self._rows.append(as_row(view))
        self._say(told(view))

    def already(self, facts: Sequence[Fact], error: AlreadySaid) -> None:
        self.count += len(facts)
        self.succeeded += len(facts)
        for request in (fact.request for fact in facts):
            row = {"prompt": request.prompt, "target": request.target_new}
            self._rows.append({**row, "success": True, "already": True, "edit_id": None})
        self._say([f"{_about(facts)}: nothing was edited, {error}"])

    def refused(self, facts: Sequence[Fact], error: Exception) -> None:
        self.count += len(facts)
        self._rows += [_refused(fact.request, error) for fact in facts]
        click.echo(f"error: {_about(facts)}: {error}", err=True)

    def _say(self, lines: Iterable[str]) -> None:
        if self._as_json or self._silent:
            return
        for line in lines:
            click.echo(printable(line))
        sys.stdout.flush()  # a pipe too is told of each edit when it is made


def _about(facts: Sequence[Fact]) -> str:
    return repr(facts[0].request.prompt) if len(facts) == 1 else f"{len(facts)} facts"


def _facts(
    prompt: str | None, path: Path | None, chat: bool | None, given: dict[str, Any]
) -> list[Fact]:
    """What is to be edited and how, checked before anything is loaded.

    What the command line says goes before what a line of the file says; another method takes
    nothing from the line's settings.
    """
    from engine.requests import Fact, Request, is_question

    named = {
        "subject": given.pop("subject"),
        "target_old": given.pop("old"),
        "rephrases": given.pop("rephrases"),
        "neighbours": given.pop("neighbours"),
    }
    target = given.pop("target")
    if (prompt is None) == (path is None):
        raise click.UsageError("give either PROMPT or --file.")
    if path is not None:
        if target is not None or any(named.values()):
            raise click.UsageError("with --file, everything about a fact stands in the file.")
        return [_as_asked(fact, chat, given) for fact in facts_of(path)]
    if target is None:
        raise click.UsageError("--target is missing.")
    assert prompt is not None
    asked = is_question(prompt) if chat is None else chat
    request = Request(prompt=prompt, target_new=target, chat=asked, **named).check()
    return [_as_asked(Fact(request=request), None, given)]


def _as_asked(fact: Fact, chat: bool | None, given: dict[str, Any]) -> Fact:
    method, hp = given["method"] or fact.method, given["hp"]
    own = fact.hparams if method == fact.method else {}
    request = fact.request if chat is None else dataclasses.replace(fact.request, chat=chat)
    return dataclasses.replace(fact, request=request, method=method, hparams={**own, **hp})


def _refused(fact: Request, error: Exception) -> dict[str, Any]:
    return {
        "prompt": fact.prompt,
        "target": fact.target_new,
        "success": False,
        "error": {"kind": type(error).__name__, "message": str(error)},
    }


def _took(view: CorrectionView) -> int:
    """How many facts of an edit the model answers as wanted."""
    return sum(fact.success for fact in view.facts) if view.facts else int(view.edit.success)


def as_row(view: CorrectionView) -> dict[str, Any]:
    """An edit as `--json` prints it."""
    fluency = view.metrics.get("fluency", {})
    return {
        "session": view.session_id,
        "edit_id": view.edit.id,
        "method": view.edit.method,
        "model": view.model,
        "subject": view.edit.subject,
        "prompt": view.prompt,
        "target": view.edit.target,
        "before": view.before,
        "after": view.after,
        "success": view.edit.success,
        "verdict": view.edit.verdict,
        "rephrases": _counted(view, "rephrased", "hit"),
        "neighbours": _counted(view, "neighbours", "kept"),
        "perplexity": {"before": fluency.get("before"), "after": fluency.get("after")},
        "layers": list(view.layers),
        "seconds": view.seconds,
        "steps": view.steps,
        "losses": list(view.losses),
        "versions": view.versions,
        "supersedes": [edit.id for edit in view.superseded],
        **({"facts": list(view.facts)} if view.facts else {}),
    }


def _counted(view: CorrectionView, metric: str, name: str) -> dict[str, int]:
    """A share as a number of hits."""
    found = view.metrics.get(metric)
    if found is None or math.isnan(found["after"]):
        return {"n": 0, name: 0}
    return {"n": found["n"], name: round(found["after"] * found["n"])}


def told(view: CorrectionView) -> list[str]:
    """An edit as a person reads it."""
    row = as_row(view)
    lines = [
        *_facts_told(view),
        view.edit.verdict,
        *filter(None, [superseding(view)]),
    ]
    if row["rephrases"]["n"]:
        lines.append("rephrasings that say it: {hit} of {n}".format(**row["rephrases"]))
    lines.append(f"edit {view.edit.id} in session {view.session_id}, {view.seconds['total']:.1f} s")
    return lines


def _facts_told(view: CorrectionView) -> list[str]:
    if not view.facts:
        return [
            f"{view.prompt!r} -> {view.edit.target!r}",
            f"before: {_in_line(view.before.answer)}",
            f"after: {_in_line(view.after.answer)}",
        ]
    return [
        f"{_state(fact)}: {fact.prompt!r} -> {fact.target!r}, now: " + _in_line(fact.after.answer)
        for fact in view.facts
    ]


def _state(fact: FactView) -> str:
    return "already so" if fact.already else "took" if fact.success else "not taken"


def _in_line(text: str) -> str:
    return " ".join(text.split())
