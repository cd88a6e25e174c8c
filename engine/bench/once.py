"""One edit, timed: what every benchmark repeats."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Generator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..config import resolve_hparams
from ..edit import Edit
from ..events import Event
from ..ledger import Ledger
from ..lm import LM
from ..methods import get
from ..paths import packaged
from ..requests import Request
from .results import JsonDict


def hparams(lm: LM, method: str, overrides: Mapping[str, str], seed: int = 0) -> Any:
    """The method's hyper-parameters for this model; `seed` is its own where it has one and
    `overrides` do not name another. Raises BadSetting, BadFile, UnknownName."""
    info = get(method)
    stack = info.stack(lm.arch)
    values, _ = resolve_hparams(
        method,
        info.params_class(),
        model_type=stack.model_type,
        n_layers=stack.n_layers,
        width=stack.width,
        mlp_width=stack.mlp_width,
        name=lm.name,
        overrides=overrides,
    )
    seeded = "seed" in {f.name for f in dataclasses.fields(values)} and "seed" not in overrides
    return dataclasses.replace(values, seed=seed) if seeded else values


def described(lm: LM) -> JsonDict:
    """The model, and the code that edits it, as results files name them."""
    return {
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "attention": str(getattr(lm.model.config, "_attn_implementation", "")),
        "code": code(),
    }


@cache
def code() -> str:
    """12 hex digits over the engine's own source, benchmarks apart: a results file that was
    begun with other code is not gone on with."""
    engine = Path(__file__).parent.parent
    files = sorted(f for d in (".", "methods", "evaluate") for f in (engine / d).glob("*.py"))
    files.append(packaged("entities.json"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def timed(
    lm: LM, method: str, requests: Sequence[Request], hp: Any
) -> Generator[Event, None, tuple[Edit, float]]:
    """One edit and the seconds from the requests to the changed model; undone on return."""
    edit_with = get(method).run()
    ledger = Ledger()
    _synchronise(lm)
    began = time.perf_counter()
    edit: Edit = yield from edit_with(lm, requests, hp)
    ledger.apply(edit)
    with lm.active(ledger.patches()):
        _synchronise(lm)
        seconds = time.perf_counter() - began
    return edit, seconds


def _synchronise(lm: LM) -> None:
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)
