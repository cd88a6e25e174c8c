"""`llm-edit methods`: what can edit."""

from __future__ import annotations

import dataclasses

import click

from tui.console import table

from .common import options, print_json


@click.command()
@options()
def methods(as_json: bool) -> None:
    """List the editing methods."""
    from engine import methods as known

    every, broken = known.plugins()
    found = list(every.values())
    for name, reason in broken.items():
        click.echo(f"left out: {name}: {reason}", err=True)
    if as_json:
        hidden = {"target", "params"}
        rows = [dataclasses.asdict(m) for m in found]
        print_json({"methods": [{k: v for k, v in r.items() if k not in hidden} for r in rows]})
        return
    rows_ = [
        (
            m.name,
            _yes(m.needs_subject),
            _yes(m.batch),
            _yes(m.training),
            m.summary,
            m.paper,
        )
        for m in found
    ]
    for line in table(("method", "subject", "batch", "training", "what it does", "paper"), rows_):
        click.echo(line)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
