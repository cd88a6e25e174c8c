"""`llm-edit trace`: where a model looks a fact up."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import pictures
from .checking import check
from .common import assistant_options, drive, loading, options, placing, plain, print_json

if TYPE_CHECKING:
    from engine.trace import Trace

KINDS = ("state", "mlp", "attention")
ENDINGS = (*pictures.ENDINGS, ".json")


@click.command()
@click.argument("prompt")
@click.option("--subject", required=True, help="The words of PROMPT that the fact is about.")
@click.option("--answer", default="", help="Follow its first token; default: what the model says.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS),
              help="What is restored; may be repeated. Default: state and mlp.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=10, show_default=True,
              help="Draws of the noise.")  # fmt: skip
@click.option("--window", type=click.IntRange(min=1), help="Layers restored together, of mlp and "
              "attention; default: as many of the depth as the paper's 10 of 48.")  # fmt: skip
@click.option("--noise", type=click.FloatRange(min=0, min_open=True), default=3.0,
              show_default=True, help="In standard deviations of the embeddings.")  # fmt: skip
@click.option("--chat/--statement", "chat", default=None, help="Ask PROMPT, or continue it.")
@click.option("--save", "saved", multiple=True,
              callback=functools.partial(pictures.checked, endings=ENDINGS),
              type=click.Path(path_type=Path, dir_okay=False),
              help="Write a picture, .svg or .png, or the numbers, .json; repeatable.")  # fmt: skip
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters alone.")
@options("name")
@click.option("--device", help="cpu, cuda, cuda:1, mps or auto.")
@click.option("--dtype", help="fp32, bf16, fp16 or auto.")
@placing
@click.option("--seed", type=int, help="Seed of the noise.")
def trace(
    prompt: str,
    subject: str,
    answer: str,
    kinds: tuple[str, ...],
    samples: int,
    window: int | None,
    noise: float,
    chat: bool | None,
    saved: tuple[Path, ...],
    ascii_only: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Which tokens and layers of the unedited model the answer to PROMPT comes through.

    The subject is noised until the answer is lost; then each place's clean output is put back, and
    what returns of the answer is drawn: tall bars are where the fact is.
    """
    from engine.requests import Request, is_question

    asked = is_question(prompt) if chat is None else chat
    request = Request(prompt=prompt, subject=subject, target_new="-").check()
    if any(path.suffix.lower() == ".png" for path in saved):
        pictures.require_matplotlib("pip install 'llm-edit-chat[bench]', or save as .svg.")
    wanted = assistant_options(given)
    check(wanted)

    from engine.trace import trace as traced

    lm = drive(loading(wanted), "trace")
    found: Trace = drive(
        traced(
            lm,
            lm.prompt(request.prompt, chat=asked),
            request.subject or "",
            answer=answer,
            kinds=kinds or KINDS[:2],
            samples=samples,
            window=window or 0,
            deviations=noise,
            seed=wanted.seed,
        ),
        "trace",
    )
    pictures.write(saved, lambda path: _save(found, path))
    if as_json:
        print_json(found)
    else:
        _draw(found, ascii_only)
    return 0


def _save(found: Trace, path: Path) -> None:
    """The object that --json prints, or a picture, by the name's ending."""
    if path.suffix.lower() == ".json":
        told = json.dumps(plain(found), ensure_ascii=False, allow_nan=False)
        path.write_text(told + "\n", encoding="utf-8")
        return
    from tui import heatmap

    heatmap.save(found, path)


def _draw(found: Trace, ascii_only: bool) -> None:
    from tui import heatmap

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    narrow = ascii_only or not (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(heatmap.headline(found))
    if found.total <= 0:
        click.echo("The noise does not lower the answer's probability: effects mean little.")
    for kind in found.effects:
        click.echo("")
        for line in heatmap.lines(found, kind, width=width, ascii_only=narrow):
            click.echo(line)
    click.echo("\n* tokens of the subject")
