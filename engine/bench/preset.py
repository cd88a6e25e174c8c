"""What tuning found, as the user's own preset: a file that `config` reads."""

from __future__ import annotations

import math
import os
import textwrap
from pathlib import Path
from typing import Any

import yaml

from ..config import is_general
from ..correct import hparams_of
from ..errors import MissingResource
from ..evaluate.datasets import Dataset
from ..lm import LM
from ..methods import get
from . import tune


def values(lm: LM, plan: tune.Plan, best: tune.Tried) -> dict[str, Any]:
    """All that differs from the packaged presets: what was tried, what the command fixed, and
    what the file that is replaced said."""
    settings = plan.settings(best.setting)
    hp, origin = hparams_of(lm, get(settings.method), settings.overrides, settings.seed)
    told = hp.to_json()
    own = [k for k in told if not is_general(origin[k], settings.method)]
    own = [k for k in own if k != "seed" or k in settings.overrides]  # else of a run, not a model
    return {k: list(told[k]) if isinstance(told[k], tuple) else told[k] for k in own}


def text(
    lm: LM, plan: tune.Plan, data: Dataset, best: tune.Tried, before: tune.Tried, command: str
) -> str:
    """The file: a comment that says where the values come from, and the values."""
    kind = "chat turns" if plan.base.chat else "statements"
    dtype = str(lm.dtype).removeprefix("torch.")
    same = best.setting == before.setting
    told = [
        f"{plan.base.method} on {lm.name}, found by",
        f"    {' '.join(command.split())}",
        f"on {best.n} records of {data.name} (sha256 {data.sha256[:12]}) as {kind}, "
        f"seed {plan.base.seed}, {dtype} on {lm.device.type}.",
        f"These: {scores(best)}.",
        "They were in force before." if same else f"In force before: {scores(before)}.",
    ]
    lines = [line for part in told for line in _wrapped(part)]
    body = values(lm, plan, best)
    dumped = yaml.safe_dump(body, sort_keys=False, allow_unicode=True) if body else ""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + dumped


def _wrapped(part: str) -> list[str]:
    return [part] if part.startswith(" ") else textwrap.wrap(part, 96)


def scores(tried: tune.Tried) -> str:
    """The figures of a setting in a sentence, in percent."""
    said, rephrased, kept = map(percent, (tried.said, tried.rephrased, tried.kept))
    return (
        f"score {percent(tried.score)} (greedy success {said}, on paraphrases {rephrased}, "
        f"neighbours kept {kept}), n = {tried.n}, {tried.seconds:.2f} s an edit"
    )


def percent(share: float) -> str:
    """A share of 0..1; a dash for what was not measured."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def write(path: Path, content: str) -> None:
    """The whole file or none of it. Raises MissingResource."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MissingResource(f"{path} cannot be written ({error.strerror}).") from error
