"""`llm-edit edit`: correct a model without a conversation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tui.batch import begin, groups
from tui.console import printable
from tui.wording import superseding

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
    from tui.views import CorrectionView


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
    once (see `llm-edit methods`), else an edit each. Exit code 1: an edit did not take.
    """
    if events and as_json:
        raise click.UsageError("--events and --json exclude each other.")
    facts = _facts(prompt, path, chat, given)
    wanted = assistant_options(given, reuse=True, prepare=False)
    say = narrator(verbose=verbose)
    views: list[CorrectionView] = []
    errors: list[dict[str, Any]] = []
    with opened(wanted, say) as assistant:
        for group in groups(facts, assistant.snapshot().method, one_by_one=one_by_one):
            try:
                job = begin(assistant, group, probes=probes)
                views.append(finished(job, say, print_event if events else None))
            except Exception as error:
                if path is None or not hasattr(error, "exit_code"):
                    raise
                errors += [_refused(fact.request, error) for fact in group]
                about = repr(group[0].request.prompt) if len(group) == 1 else f"{len(group)} facts"
                click.echo(f"error: {about}: {error}", err=True)
    _print(views, errors, as_json=as_json, silent=events, many=path is not None)
    return 0 if not errors and all(view.edit.success for view in views) else 1


def _facts(
    prompt: str | None, path: Path | None, chat: bool | None, given: dict[str, Any]
) -> list[Fact]:
    """What is to be edited and how, checked before anything is loaded.

    What the command line says goes before what a line of the file says; another method takes
    nothing from the line's settings.
    """
    from engine import methods
    from engine.requests import Fact, Request, is_question, read_facts

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
        facts = list(read_facts(path))
        if not facts:
            raise click.UsageError(f"{path} holds no facts.")
        for method in {fact.method for fact in facts} - {None}:
            methods.get(str(method))
        return [_as_asked(fact, chat, given) for fact in facts]
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


def _print(
    views: list[CorrectionView],
    errors: list[dict[str, Any]],
    *,
    as_json: bool,
    silent: bool,
    many: bool,
) -> None:
    if as_json:
        rows = [*map(as_row, views), *errors]
        done = sum(_took(view) for view in views)
        count = sum(len(view.facts) or 1 for view in views) + len(errors)
        print_json({"edits": rows, "n": count, "succeeded": done} if many else rows[0])
        return
    if silent:
        return
    for view in views:
        for line in told(view):
            click.echo(printable(line))


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
    marks = {True: "took", False: "not taken"}
    return [
        f"{marks[fact.success]}: {fact.prompt!r} -> {fact.target!r}, now: "
        + _in_line(fact.after.answer)
        for fact in view.facts
    ]


def _in_line(text: str) -> str:
    return " ".join(text.split())
