"""Edits one after the other, none undone: what is left of all of them, and of the model.

Records are edited in file order on one growing ledger, one by one or some at a time. At some
lengths every fact so far is asked for again by free decoding on the model as it is then (methods
that are evaluated right after each edit look better than they are), beside perplexity on fixed
prose and the growth of the weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..alarms import growth
from ..batch import ask_all, said_all, took
from ..correct import beneath
from ..edit import Edit
from ..errors import BadInput, EditFailed, LLMEditError
from ..evaluate.bootstrap import estimate, percentile
from ..evaluate.datasets import Dataset, Record
from ..evaluate.metrics import mean
from ..evaluate.probes import fluency, perplexity
from ..events import Event, Loading, Note
from ..ledger import Ledger
from ..lm import LM
from ..methods import get
from ..requests import Request
from ..resolve import Insert, ResolveParams, inserted, renewed, resolvable
from ..statistics import HELD_OUT, SEQUENCE, text_of
from .once import described, hparams
from .results import JsonDict, Results

AT = (1, 10, 30, 100, 300, 1000)
_COHORT = 10  # the first and the last so many facts


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to edit, and when to look.

    batch    facts of an edit, with a method for many
    at       numbers of facts after which everything is asked
    resolve  ask once more with the closed-form edits solved again together
    every    solve them again after every so many facts, and go on from there; 0: never
    again    rounds in which facts that are not said then are inserted anew
    ridge    how exactly they are asked for when solved again: see `ResolveParams`
    fit      steps in which all are then fitted together
    behind   generated contexts that they are fitted behind, too
    text     the text asset or file on whose last passages perplexity is measured, a few of which C
             may be measured on too; "": the packaged prose
    passages  how many of them
    """

    method: str = "r-rome"
    overrides: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    batch: int = 1
    at: tuple[int, ...] = AT
    resolve: bool = False
    every: int = 0
    again: int = 0
    ridge: float = ResolveParams.ridge
    fit: int = 0
    behind: int = 0
    text: str = ""
    passages: int = HELD_OUT

    def to_json(self, lm: LM, data: Dataset) -> JsonDict:
        found = hparams(lm, self.method, self.overrides, self.seed)
        return {
            "protocol": "sequence",
            "data": data.name,
            "data_sha256": data.sha256,
            **described(lm),
            "method": self.method,
            "hparams": found.to_json(),
            "seed": self.seed,
            "resolve": self.resolve,
            "prose": self.text,
            **({"passages": self.passages} if self.passages != HELD_OUT else {}),
            **({"batch": self.batch} if self.batch > 1 else {}),
            **({"every": self.every, "again": self.again} if self.every else {}),
            **({"ridge": self.ridge, "fit": self.fit} if self.every or self.resolve else {}),
            **({"behind": self.behind} if self.behind else {}),
        }


def run(
    lm: LM, records: Sequence[Record], settings: Settings, results: Results
) -> Generator[Event, None, None]:
    """Edit and look. Rows "edit:<i>", "at:<n>" and, where asked for, "resolved:<n>", "solved:<n>";
    i and n count facts, i up to the last one of an edit.

    The edits are kept in a folder beside the results, so that a run that was cut goes on. A fact
    whose edit fails counts as not there. Raises BadRequest for a method that edits one
    fact at a time and is given more.
    """
    if not records:
        raise BadInput("there are no records to run.", "--n must be at least 1.")
    hp = hparams(lm, settings.method, settings.overrides, settings.seed)
    again = _as_asked(hp, settings)
    info, kept = get(settings.method), results.path.with_suffix(".edits")
    insert = partial(inserted, lm, info=info, hp=hp) if settings.again else None
    if "at:0" not in results.rows:
        results.add("at:0", {"n": 0, "perplexity": (yield from _perplexity(lm, settings))})
    ledger, facts = Ledger(), list[Request]()
    for start in range(0, len(records), settings.batch):
        fresh = [each.request.check() for each in records[start : start + settings.batch]]
        facts += fresh
        number = len(facts)
        key = f"edit:{number}"
        if key in results.rows:
            edit = _load(kept, key) if not results.rows[key]["error"] else None
        else:
            edit = yield from _edit(lm, ledger, info.run(), fresh, hp, key, results)
        if edit is not None:
            ledger.apply(edit)
        if settings.every and number // settings.every > start // settings.every:
            yield from _solve_again(lm, ledger, insert, again, f"solved:{number}", results)
        yield Loading(stage="bench", done=number, total=len(records), unit="facts")
        if any(start < at <= number for at in settings.at) or number == len(records):
            yield from _look(lm, ledger, facts, settings, results, again)


def _edit(
    lm: LM,
    ledger: Ledger,
    method: Any,
    requests: Sequence[Request],
    hp: Any,
    key: str,
    results: Results,
) -> Generator[Event, None, Edit | None]:
    """The edit is on the disk before its row says so. Of one question's answers the last counts."""
    began, edit, error = time.perf_counter(), None, ""
    asked = list({request.key(): request for request in requests}.values())
    rivals, patches = beneath(ledger, asked)
    try:
        with lm.active(patches):
            made: Edit = yield from method(lm, asked, hp)
        edit = replace(made, supersedes=(*made.supersedes, *(rival.id for rival in rivals)))
    except EditFailed as failed:
        error = str(failed)
        yield Note(text=f"record {key.partition(':')[2]}: {error}")
    seconds = time.perf_counter() - began
    if edit is not None:
        _save(results.path.with_suffix(".edits"), key, edit)
    results.add(key, {"seconds": seconds, "error": error, "facts": len(asked)})
    return edit


def _solve_again(
    lm: LM,
    ledger: Ledger,
    insert: Insert | None,
    hp: ResolveParams,
    key: str,
    results: Results,
) -> Generator[Event, None, None]:
    """Leaves the ledger as it is where its edits cannot be solved together."""
    kept = results.path.with_suffix(".edits")
    if key not in results.rows and len(resolvable(ledger)) > 1:
        began, error = time.perf_counter(), ""
        try:
            edit = yield from renewed(lm, ledger, resolvable(ledger), insert, hp)
            _save(kept, key, edit)
        except EditFailed as failed:
            error = str(failed)
            yield Note(text=f"not solved again: {error}")
        results.add(key, {"seconds": time.perf_counter() - began, "error": error})
    if key in results.rows and not results.rows[key]["error"]:
        ledger.apply(_load(kept, key))


def _look(
    lm: LM,
    ledger: Ledger,
    facts: Sequence[Request],
    settings: Settings,
    results: Results,
    again: ResolveParams,
) -> Generator[Event, None, None]:
    number = len(facts)
    if f"at:{number}" not in results.rows:
        results.add(f"at:{number}", (yield from _state(lm, ledger, facts, settings)))
    key = f"resolved:{number}"
    if settings.resolve and len(resolvable(ledger)) > 1 and key not in results.rows:
        began = time.perf_counter()
        try:
            edit = yield from renewed(lm, ledger, resolvable(ledger), None, again)
        except LLMEditError as error:
            results.add(key, {"n": len(facts), "error": str(error)})
            return
        seconds = time.perf_counter() - began
        state = yield from _state(lm, Ledger((*ledger.edits, edit)), facts, settings)
        results.add(key, {**state, "seconds": seconds})


def _as_asked(hp: Any, settings: Settings) -> ResolveParams:
    """With C measured on what the method has it measured on."""
    own = {k: getattr(hp, k) for k in ("text", "tokens") if hasattr(hp, k)}
    return ResolveParams(
        again=settings.again,
        ridge=settings.ridge,
        fit=settings.fit,
        fit_contexts=settings.behind,
        **own,
    )


def _perplexity(lm: LM, settings: Settings) -> Generator[Event, None, float]:
    """Of the model as it is, on what edits have nothing to do with."""
    if not settings.text:
        return fluency(lm)
    passages = (yield from text_of(settings.text)).passages
    return perplexity(lm, passages[-settings.passages :], SEQUENCE)


def _state(
    lm: LM, ledger: Ledger, facts: Sequence[Request], settings: Settings
) -> Generator[Event, None, JsonDict]:
    """Of all facts so far, on the model as it is."""
    with lm.active(ledger.patches()):
        answers = yield from ask_all(lm, facts)
        rephrased = yield from _rephrased(lm, facts)
        fluent = yield from _perplexity(lm, settings)
    said = [float(took(f, a.answer)) for f, a in zip(facts, answers, strict=True)]
    return {
        "n": len(facts),
        "said": estimate(said).to_json(),
        "first": mean(said[:_COHORT]),
        "last": mean(said[-_COHORT:]),
        **({"rephrased": estimate(rephrased).to_json()} if rephrased else {}),
        "p_new": mean([a.p_new for a in answers]),
        "perplexity": fluent,
        "weight": max(growth(lm, ledger.patches()).values(), default=0.0),
    }


def _rephrased(lm: LM, facts: Sequence[Request]) -> Generator[Event, None, list[float]]:
    """Of each fact that has paraphrases, the share that is answered as wanted."""
    asked = [replace(fact, prompt=words) for fact in facts for words in fact.rephrases]
    said = iter((yield from said_all(lm, asked)))
    return [mean([float(next(said)) for _ in f.rephrases]) for f in facts if f.rephrases]


def summary(results: Results) -> JsonDict:
    """The states by number of facts, and the seconds of an edit."""
    edits = [row for key, row in results.rows.items() if key.startswith("edit:")]
    seconds = [row["seconds"] for row in edits]
    facts = sum(row.get("facts", 1) for row in edits)
    return {
        "states": {k: v for k, v in results.rows.items() if k.startswith(("at:", "resolved:"))},
        "seconds": {
            "median": percentile(seconds, 0.5),
            "p95": percentile(seconds, 0.95),
            "fact": sum(seconds) / max(facts, 1),
        },
        "facts": facts,
        "failed": sum(bool(row["error"]) for row in edits),
        "settings": results.header["settings"],
        "environment": results.header["environment"],
    }


def _save(folder: Path, key: str, edit: Edit) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    described_, tensors = edit.save()
    _file(folder, key, "safetensors").write_bytes(tensors)
    _file(folder, key, "json").write_text(json.dumps(described_), encoding="utf-8")


def _load(folder: Path, key: str) -> Edit:
    text = _file(folder, key, "json").read_text(encoding="utf-8")
    return Edit.load(json.loads(text), _file(folder, key, "safetensors").read_bytes())


def _file(folder: Path, key: str, suffix: str) -> Path:
    """Of the edit of a row "edit:3" or "solved:3"."""
    kind, _, number = key.partition(":")
    return folder / f"{number if kind == 'edit' else f'{kind}-{number}'}.{suffix}"
