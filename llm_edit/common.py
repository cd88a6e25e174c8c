"""What the commands share: options, an opened assistant, output."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tui.console import Narrator, follow

from . import completing

if TYPE_CHECKING:
    from engine.events import Event
    from engine.lm import LM
    from engine.worker import Job
    from sessions.store import Store
    from tui.assistant import Assistant
    from tui.options import Options

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def _home(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    if value is not None:
        os.environ["LLM_EDIT_HOME"] = str(value.expanduser().absolute())


def _pairs(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.", context, option)
        found[key.strip()] = value.strip()
    return found


_HOME = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), callback=_home, is_eager=True,
    expose_value=False, help="Folder of sessions and configuration.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
_SESSION = click.option(
    "--session", shell_complete=completing.sessions, help="Session: title, id, or part of an id."
)
_MODEL = click.option(
    "--model", shell_complete=completing.models, help="Model: alias, hub id, folder or .gguf file."
)
_METHOD = click.option(
    "--method", shell_complete=completing.methods, help="Editing method: see llm-edit methods."
)
PLACING = (
    click.option("--device-map", type=click.Choice(["auto"]),
                 help="auto: spread the model over all GPUs and the CPU."),
    click.option("--load-in", type=click.Choice(["4bit", "8bit", "none"]),
                 help="Quantise the weights as they are loaded (needs bitsandbytes)."),
)  # fmt: skip
_RUNNING = (
    click.option("--device", shell_complete=completing.words("auto", "cpu", "cuda", "mps"),
                 help="cpu, cuda, cuda:1, mps or auto."),
    click.option("--dtype", shell_complete=completing.words("auto", "fp32", "bf16", "fp16"),
                 help="fp32, bf16, fp16 or auto."),
    *PLACING,
    click.option("--seed", type=int, help="Seed of whatever is drawn."),
)  # fmt: skip
_TUNING = (
    *_RUNNING,
    click.option("--hp", multiple=True, metavar="KEY=VALUE", callback=_pairs,
                 help="Hyper-parameter of the method; may be repeated."),
)  # fmt: skip


def options(*groups: str) -> Callable[[Command], Command]:
    """--home and --json, and of `groups`: "model" (all that concern one and its edits), "tuning"
    (the same without --method), "running" (without --hp too), "name", "session"."""
    chosen = [_MODEL, _METHOD, *_TUNING] if "model" in groups else []
    chosen += [_MODEL, *_TUNING] if "tuning" in groups else []
    chosen += [_MODEL, *_RUNNING] if "running" in groups else []
    chosen += [_MODEL] if "name" in groups else []
    chosen += [_SESSION] if "session" in groups else []
    chosen += [_HOME, *(() if "no-json" in groups else (_JSON,))]

    def decorate(function: Command) -> Command:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


def placing(function: Command) -> Command:
    """--device-map and --load-in, for a command that does not take all options of a model."""
    for option in reversed(PLACING):
        function = option(function)
    return function


def assistant_options(given: dict[str, Any], **more: Any) -> Options:
    """Options of the assistant from those of a command; what was not given is as configured."""
    from engine import paths
    from engine.placing import check_dtype
    from tui import settings
    from tui.options import Options

    configured, _ = settings.load()
    names = ("model", "method", "dtype", "device", "device_map", "load_in", "seed")
    found = {name: given[name] for name in names if given.get(name) is not None}
    wanted = Options(
        dtype=configured.dtype,
        device=configured.device,
        seed=configured.seed,
        max_tokens=configured.max_tokens,
        home=paths.home(),
        hp=given.get("hp") or {},
        session=given.get("session"),
    )
    if given.get("session") is None and not more.get("resume_last"):
        wanted = dataclasses.replace(wanted, model=configured.model, method=configured.method)
    if given.get("method"):
        from engine import methods

        methods.get(given["method"])
    wanted = dataclasses.replace(wanted, **found, **more)
    check_dtype(wanted.dtype)
    return wanted


@contextmanager
def stored() -> Iterator[Store]:
    """The store of this home."""
    from engine import paths
    from sessions.store import Store

    with Store.open(paths.home()) as store:
        yield store


@contextmanager
def opened(options: Options, narrator: Narrator) -> Iterator[Assistant]:
    """An assistant whose model is loaded. Raises what its loading raises."""
    from tui.assistant import Assistant

    assistant = Assistant(options)
    try:
        finished(assistant.load(), narrator)
        yield assistant
    finally:
        assistant.close()


def loading(wanted: Options) -> Generator[Event, None, LM]:
    """The model of these options without a session. Imports torch; raises what it raises."""
    from engine.lm import LM

    return LM.load(
        wanted.model,
        dtype=wanted.dtype,
        device=wanted.device,
        device_map=wanted.device_map,
        load_in=wanted.load_in.replace("none", ""),
    )


def finished(job: Job[T], narrator: Narrator, listener: Callable[[Any], None] | None = None) -> T:
    """The result of a job, narrated. Raises its error; KeyboardInterrupt if it was stopped."""
    return follow(job, narrator, [listener] if listener else []).value()


def narrator(*, verbose: bool = False, quiet: bool = False) -> Narrator:
    """Narration on stderr: a rewriting line on a terminal, now and then a line elsewhere."""
    smart = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Narrator(sys.stderr, verbose=verbose, rewriting=smart, quiet=quiet)


def drive(
    job: Generator[Any, None, T], stage: str, heard: Callable[[Any], bool] = lambda event: True
) -> T:
    """Run a job to its end, saying on stderr how far it is. Ctrl+C ends it.

    heard  which of its events are said
    """
    say = narrator()
    try:
        while True:
            event = next(job)
            if not heard(event):
                continue
            if event.kind == "Note":
                say.line(event.text)
            else:
                say.feed(event, stage)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        say.clear()
        job.close()


def print_json(value: Any) -> None:
    """One object on one line; numbers that do not exist are null."""
    click.echo(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """JSON-safe: dataclasses as objects, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def print_event(event: Any) -> None:
    """One line of JSON Lines."""
    click.echo(json.dumps(event.to_json(), ensure_ascii=False))
