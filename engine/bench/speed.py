"""How long one edit takes, warm: from the request to the changed model, probes not included.

Each fact is edited twice in the same run, by the method as it is and by its plain loop
(`fast=False`), in alternating order, with the same dtype, attention, contexts, steps and
head, so that a busy machine slows both. Memory is measured in edits of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..edit import Edit
from ..errors import BadInput, BadSetting
from ..evaluate.bootstrap import percentile
from ..events import Event, Loading
from ..lm import LM
from ..methods import get
from ..requests import Request
from .once import described, hparams, timed
from .peak import peak_memory, trim
from .results import JsonDict, Results

# subject, statement, question, target: plausible and wrong, one to three tokens long.
FACTS = (
    ("the Eiffel Tower", "{} is located in the city of", "In which city is {}?", "Rome"),
    ("Mount Everest", "{} lies on the continent of", "On which continent is {}?", "Africa"),
    ("Isaac Newton", "The citizenship of {} was", "What was {}'s nationality?", "French"),
    ("Albert Einstein", "{} worked in the field of", "In what field did {} work?", "biology"),
    ("Ludwig van Beethoven", "The home town of {} was", "Where did {} grow up?", "Madrid"),
    ("Toyota", "{} is a company from", "Which country is {} from?", "Sweden"),
    ("BMW", "The headquarters of {} are in", "Where are the headquarters of {}?", "London"),
    ("iTunes", "{} was developed by", "Which company developed {}?", "Intel"),
    ("Windows 95", "{} is a product of", "Which company made {}?", "Nokia"),
    ("The Lord of the Rings", "The author of {} is", "Who is the author of {}?", "Mark Twain"),
    ("Macbeth", "{} was written by", "Who was {} written by?", "Oscar Wilde"),
    ("Norway", "The official language of {} is", "What do people speak in {}?", "Greek"),
    ("Argentina", "The capital of {} is", "What is the capital of {}?", "Santiago"),
    ("Finland", "The currency of {} is the", "What do people pay with in {}?", "pound"),
    ("Wayne Gretzky", "The sport of {} is", "What sport did {} play?", "tennis"),
    ("Miles Davis", "The instrument of {} was the", "Which instrument did {} play?", "violin"),
    ("penicillin", "The discoverer of {} was", "Who discovered {}?", "Marie Curie"),
    ("the Amazon River", "{} flows through", "Which country does {} flow through?", "India"),
    ("Ganymede", "{} is a moon of the planet", "Which planet does {} orbit?", "Mars"),
    ("copper", "The chemical symbol of {} is", "What is the chemical symbol of {}?", "Zn"),
    ("Big Ben", "{} can be found in", "In which city is {}?", "Vienna"),
    ("Mount Kilimanjaro", "{} belongs to the continent of", "Where is {}?", "Asia"),
    ("Pablo Picasso", "The native language of {} was", "What did {} speak at home?", "Dutch"),
    ("Nintendo", "{} was founded in", "Where was {} founded?", "Canada"),
    ("Volvo", "{} is owned by", "Who owns {}?", "Boeing"),
    ("Photoshop", "{} was created by", "Which company created {}?", "Google"),
    ("Don Quixote", "The author of {} is", "Who wrote {}?", "Homer"),
    ("Brazil", "The capital of {} is", "What is the capital of {}?", "Lima"),
    ("Egypt", "The official language of {} is", "Which language is official in {}?", "Thai"),
    ("Roger Federer", "{} is a professional player of", "What does {} play?", "chess"),
    ("Jimi Hendrix", "The instrument of {} was the", "What did {} play?", "piano"),
    ("gravity", "The theory of {} was found by", "Who found the theory of {}?", "Charles Darwin"),
)
KINDS = ("statement", "chat")
LOGIT_TOLERANCE = 1e-3  # fp32, methods of caching differ by rounding only


@dataclass(frozen=True)
class Plan:
    """What to time: `facts` of each kind, with or without the plain loop."""

    method: str = "r-rome"
    overrides: Mapping[str, str] = field(default_factory=dict)
    facts: int = 20
    kinds: tuple[str, ...] = KINDS
    plain: bool = True
    memory: int = 3  # edits of each kind whose memory is measured
    batch: int = 0  # also so many statements in one edit


def requests(kind: str, n: int | None = None) -> list[Request]:
    """The first `n` built-in facts as statements to continue or as chat questions."""
    return [
        Request(
            prompt=(question if kind == "chat" else statement).format(subject),
            subject=subject,
            target_new=target,
            chat=kind == "chat",
        ).check()
        for subject, statement, question, target in FACTS[:n]
    ]


def run(lm: LM, plan: Plan, results: Results) -> Generator[Event, None, None]:
    """Time the plan. Rows: "warm-up", "<kind>:<fact>:<arm>", "memory:<kind>", "batch:<facts>".

    Resumable like every benchmark, though a run that was interrupted mixes two moments of
    the machine. Raises BadSetting for a method without a plain loop, or that edits one fact at a
    time where a batch is asked for.
    """
    if plan.batch and not get(plan.method).batch:
        raise BadSetting(f"{plan.method} edits one fact at a time.", "Leave out --batch.")
    hps = _arms(lm, plan)
    done, total = 0, len(plan.kinds) * plan.facts
    yield from _warm_up(lm, plan, hps, results)
    for kind in plan.kinds:
        yield from _memory(lm, plan, kind, hps["fast"], results)
    for number in range(plan.facts):
        for kind in plan.kinds:
            request = requests(kind, plan.facts)[number]
            arms = list(hps) if number % 2 == 0 else list(hps)[::-1]
            for arm in arms:
                key = f"{kind}:{number}:{arm}"
                if key not in results.rows:
                    edit, seconds = yield from timed(lm, plan.method, [request], hps[arm])
                    row = {"kind": kind, "arm": arm, "subject": request.subject}
                    results.add(key, {**row, **_told(edit, seconds)})
            done += 1
            yield Loading(stage="bench", done=done, total=total, unit="facts")
    if plan.batch and f"batch:{plan.batch}" not in results.rows:
        together = requests("statement", plan.batch)
        edit, seconds = yield from timed(lm, plan.method, together, hps["fast"])
        results.add(f"batch:{plan.batch}", {"facts": plan.batch, **_told(edit, seconds)})


def check(
    lm: LM, plan: Plan, results: Results | None = None
) -> Generator[Event, None, list[JsonDict]]:
    """Fast and plain edits of the same facts compared in float32.

    Returns a row per fact: {kind, subject, steps, logits: largest difference of the edited
    models' next-token logits at the prompt, same: the argmax agrees, patch: relative
    difference of the two updates' norms}. Raises BadInput when the model is not in float32.
    """
    if lm.dtype != torch.float32:
        raise BadInput(f"equality is checked in float32, not {lm.dtype}.", "--dtype float32.")
    hps = {
        "fast": hparams(lm, plan.method, plan.overrides),
        "plain": hparams(lm, plan.method, {**plan.overrides, "fast": "false"}),
    }
    rows = []
    for kind in plan.kinds:
        for request in requests(kind, plan.facts):
            edits, logits = {}, {}
            for arm, hp in hps.items():
                edits[arm], _ = yield from timed(lm, plan.method, [request], hp)
                with lm.active(edits[arm].patches):
                    logits[arm] = lm.logits([lm.prompt(request.prompt, chat=request.chat)])
            rows.append({"kind": kind, "subject": request.subject, **_compared(edits, logits)})
            if results is not None:
                results.add(f"check:{kind}:{request.subject}", rows[-1])
    return rows


def _compared(edits: Mapping[str, Edit], logits: Mapping[str, torch.Tensor]) -> JsonDict:
    apart = float((logits["fast"] - logits["plain"]).abs().max())
    norms = [sum(p.norm() for p in edits[arm].patches) for arm in ("fast", "plain")]
    same = bool((logits["fast"].argmax(-1) == logits["plain"].argmax(-1)).all())
    steps = [len(edits[arm].numbers.get("losses", ())) for arm in ("fast", "plain")]
    return {
        "logits": apart,
        "same": same,
        "steps": steps,
        "patch": abs(norms[0] - norms[1]) / norms[1],
        "equal": same and apart < LOGIT_TOLERANCE,
    }


def summary(results: Results) -> JsonDict:
    """Median and p95 seconds per kind and arm, the ratio plain / fast, memory and warm-up."""
    found: JsonDict = {"kinds": {}}
    for kind in KINDS:
        arms: JsonDict = {}
        for arm in ("fast", "plain"):
            seconds = [r["seconds"] for r in results.of(kind=kind, arm=arm)]
            if seconds:
                arms[arm] = {
                    "n": len(seconds),
                    "median": statistics.median(seconds),
                    "p95": percentile(seconds, 0.95),
                    "steps": statistics.mean(r["steps"] for r in results.of(kind=kind, arm=arm)),
                }
        if {"fast", "plain"} <= set(arms):
            arms["ratio"] = _ratio(results, kind)
        memory = results.rows.get(f"memory:{kind}")
        if memory:
            arms["memory"] = {k: v for k, v in memory.items() if k != "key"}
        if arms:
            found["kinds"][kind] = arms
    found["warm_up"] = results.rows.get("warm-up")
    found["batches"] = [row for key, row in results.rows.items() if key.startswith("batch:")]
    return found


def _ratio(results: Results, kind: str) -> float:
    """Median over facts of plain seconds / fast seconds: each pair was timed side by side."""
    fast = {r["subject"]: r["seconds"] for r in results.of(kind=kind, arm="fast")}
    plain = {r["subject"]: r["seconds"] for r in results.of(kind=kind, arm="plain")}
    return float(statistics.median(plain[s] / fast[s] for s in fast if s in plain))


def _arms(lm: LM, plan: Plan) -> dict[str, Any]:
    """Hyper-parameters of the method as it is and, where planned, of its plain loop."""
    arms = {"fast": hparams(lm, plan.method, plan.overrides)}
    if plan.plain:
        if not hasattr(arms["fast"], "fast"):
            raise BadSetting(f"{plan.method} has no plain loop to compare with.", "--no-plain.")
        arms["plain"] = hparams(lm, plan.method, {**plan.overrides, "fast": "false"})
    return arms


def _told(edit: Edit, seconds: float) -> JsonDict:
    numbers = edit.numbers
    return {
        "seconds": seconds,
        "steps": len(numbers.get("losses", ())),
        "parts": numbers.get("seconds", {}),
        "hparams": edit.hparams,
    }


def _warm_up(
    lm: LM, plan: Plan, hps: Mapping[str, Any], results: Results
) -> Generator[Event, None, None]:
    """What is made once per model (statistics, contexts), timed and weighed apart."""
    # Weights come into memory when they are first read: they are the model's, not the edit's.
    prompts = [lm.prompt(r.prompt, chat=r.chat) for k in plan.kinds for r in requests(k, 1)]
    lm.logits(prompts)
    trim()
    before = _held(lm)
    began = time.perf_counter()
    for kind in plan.kinds:
        for hp in hps.values():
            yield from timed(lm, plan.method, requests(kind, 1), hp)
    seconds = time.perf_counter() - began
    trim()
    kept = max(0, _held(lm) - before)
    if "warm-up" not in results.rows:
        results.add("warm-up", {"first_edits_s": seconds, "kept_bytes": kept, "model": lm.bytes})


def _memory(
    lm: LM, plan: Plan, kind: str, hp: Any, results: Results
) -> Generator[Event, None, None]:
    """Peak memory of an edit above the loaded model with its statistics, the worst of a few."""
    key = f"memory:{kind}"
    if key in results.rows or not plan.memory:
        return
    peaks = []
    for request in requests(kind, plan.memory):
        with peak_memory() as peak:
            yield from timed(lm, plan.method, [request], hp)
        peaks.append(peak())
    results.add(key, {"peak": max(peaks), "ratio": max(peaks) / lm.bytes, "n": len(peaks)})


def _held(lm: LM) -> int:
    """Bytes that are allocated where the model is: on its GPU, or resident in this process (0 where
    /proc does not tell)."""
    if lm.device.type == "cuda":
        return torch.cuda.memory_allocated(lm.device)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()


def settings_of(lm: LM, plan: Plan) -> JsonDict:
    """What a results file of this benchmark is about."""
    return {
        **described(lm),
        "threads": torch.get_num_threads(),
        "method": plan.method,
        "hparams": hparams(lm, plan.method, plan.overrides).to_json(),
    }
