"""Results as Markdown: a table, and below it everything needed to cite it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import BadInput
from ..evaluate.bootstrap import RESAMPLES, Estimate
from . import chatlist, runner, sequence, speed
from .results import JsonDict, Results

INTERVALS = (
    f" Intervals: 95 % percentile bootstrap over records, {RESAMPLES:,} resamples, fixed seed."
)
NAMES = {
    "said": "greedy success",
    "ES": "ES",
    "PS": "PS",
    "rephrased": "greedy success on paraphrases",
    "NS": "NS",
    "EM": "EM",
    "PM": "PM",
    "NM": "NM",
    "rel": "token accuracy, prompt (tf)",
    "gen": "token accuracy, paraphrases (tf)",
    "loc": "argmax agreement, neighbours (tf)",
}


SHORT = {"said": "said", "rephrased": "said, rephrased", "rel": "Rel", "gen": "Gen", "loc": "Loc"}


def render(results: Results, n: int | None = None) -> str:
    """The report of one results file, whichever benchmark it is of."""
    makers: dict[str, Callable[[], str]] = {
        "run": lambda: run_table(results, n),
        "speed": lambda: speed_table(results),
        "chat": lambda: chat_table(results),
        "sequence": lambda: sequence_table(results),
    }
    if results.header["kind"] not in makers:
        raise BadInput(f"{results.path}: unknown kind of results {results.header['kind']!r}.")
    return makers[results.header["kind"]]()


def summary(results: Results, n: int | None = None) -> JsonDict:
    """The same as one JSON object."""
    kind = results.header["kind"]
    head = {"kind": kind, "file": str(results.path)}
    if kind == "run":
        return {**head, **runner.summary(results, n)}
    if kind == "sequence":
        return {**head, **sequence.summary(results)}
    found: JsonDict = speed.summary(results) if kind == "speed" else _chat_summary(results)
    return {**head, **found, **{k: results.header[k] for k in ("settings", "environment")}}


def run_table(results: Results, n: int | None = None) -> str:
    """The single-edit protocol: unedited, edited, and the change, with intervals."""
    found = runner.summary(results, n)
    rows = [["metric", "unedited", "edited", "change (points)", "n"]]
    for line in runner.lines(results, n):
        cells = [percent(line.before, interval=False), percent(line.after), percent(line.change)]
        rows.append([NAMES[line.name], *cells, str(line.after.n)])
    times = [["seconds per edit", "median", "p95"]]
    for part, t in sorted(found["seconds"].items(), key=lambda i: i[0] != "total"):
        times.append([part, f"{t['median']:.2f}", f"{t['p95']:.2f}"])
    score = (
        "" if found["S"] is None else f"S (harmonic mean of ES, PS, NS) {100 * found['S']:.1f}. "
    )
    said = (
        f"{score}{found['failed']} of {found['n']} edits failed to give an update. "
        f"After {found['exact']} of {found['n']} undos the logits of 20 fixed prompts were "
        "bit-identical to the fresh model's."
    )
    return "\n\n".join([table(rows), table(times), said, cite(results, found["n"])])


def speed_table(results: Results) -> str:
    """Seconds per edit, fast and plain, and memory."""
    found = speed.summary(results)
    rows = [["prompt", "loop", "facts", "median s", "p95 s", "mean steps", "plain / fast"]]
    memory = [["prompt", "peak above the loaded model", "of the model's size", "edits"]]
    for kind, arms in found["kinds"].items():
        for arm in ("fast", "plain"):
            if arm in arms:
                a = arms[arm]
                ratio = f"{arms['ratio']:.2f}x" if arm == "fast" and "ratio" in arms else ""
                times = [f"{a['median']:.2f}", f"{a['p95']:.2f}", f"{a['steps']:.1f}"]
                rows.append([kind, arm, str(a["n"]), *times, ratio])
        if "memory" in arms:
            m = arms["memory"]
            memory.append([kind, megabytes(m["peak"]), f"{m['ratio']:.2f}x", str(m["n"])])
    parts = [table(rows)] if len(rows) > 1 else []
    if len(memory) > 1:
        parts.append(table(memory))
    for batch in found["batches"]:
        seconds, facts = batch["seconds"], batch["facts"]
        single = found["kinds"].get("statement", {}).get("fast")
        told = f"{facts} statements in one edit: {seconds:.1f} s, {seconds / facts:.2f} s a fact"
        share = f", {seconds / facts / single['median']:.2f} of the median alone" if single else ""
        parts.append(f"{told}{share}.")
    warm = found["warm_up"]
    if warm:
        parts.append(
            f"Model {megabytes(warm['model'])}. Kept beside it once an edit was made (key "
            f"statistics, contexts, library buffers), not counted above: "
            f"{megabytes(warm['kept_bytes'])}. First edits, with what is made once: "
            f"{warm['first_edits_s']:.1f} s."
        )
    checks = [r for key, r in results.rows.items() if key.startswith("check:")]
    if checks:
        equal = sum(r["equal"] for r in checks)
        worst = max(r["logits"] for r in checks)
        parts.append(
            f"Fast and plain agree on {equal} of {len(checks)} facts in float32 (same next token, "
            f"logits within {speed.LOGIT_TOLERANCE:g}; largest difference {worst:.1e})."
        )
    return "\n\n".join([*parts, cite(results)])


def chat_table(results: Results) -> str:
    """The list of corrections in chat, one column per arm."""
    arms = list(results.header["settings"]["arms"])
    measured = {(r["arm"], r["measure"], r["of"]): r for r in chatlist.table(results)}
    rows = [["", *arms]]
    groups = [("corrected", "questions corrected", of) for of in chatlist.GROUPS]
    groups += [("kept", "neighbours kept", of) for of in chatlist.GROUPS]
    for measure, label, of in groups:
        cells = []
        for arm in arms:
            found = measured[arm, measure, of]
            cells.append(f"{percent(found['estimate'])}, {found['hits']} of {found['things']}")
        rows.append([f"{label}, {_group(of)}", *cells])
    done = {arm: len(list(results.of(arm=arm))) for arm in arms}
    exact = sum(bool(r.get("exact")) for arm in arms for r in results.of(arm=arm))
    known = chatlist.already(results)
    apart = f" {known} already answered by the target are in no row." if known else ""
    said = (
        f"Questions: {', '.join(f'{a} {n}' for a, n in done.items())}.{apart} After {exact} of "
        f"{sum(done.values())} undos the logits of 20 fixed prompts were bit-identical to the "
        "fresh model's. Corrected: the greedy answer equals the target and ended by itself. "
        "Kept: the head of the answer (first sentence, at most 12 words) is what it was. "
        f"Neighbours that were among the anchors of the edit they test: "
        f"{chatlist.anchored(results)}."
    )
    return "\n\n".join([table(rows), said, cite(results, max(done.values(), default=0))])


def sequence_table(results: Results) -> str:
    """After so many edits: what is left of all of them, and of the model."""
    found = sequence.summary(results)
    said = ["all said, free decoding (%)", "paraphrases", "first 10", "last 10"]
    rows = [["facts", *said, "perplexity", "‖Δ‖/‖W‖"]]
    for key, row in found["states"].items():
        name, _, number = key.partition(":")
        label = number if name == "at" else f"{number}, solved again"
        if "said" not in row:
            rows.append([label, *"----", rounded(row.get("perplexity")), "-"])
            continue
        shares = (percent(Estimate(**row[k])) if k in row else "-" for k in ("said", "rephrased"))
        cohorts = (f"{100 * row[k]:.0f}" for k in ("first", "last"))
        rows.append([label, *shares, *cohorts, rounded(row["perplexity"]), rounded(row["weight"])])
    t = found["seconds"]
    times = f"Seconds per edit: median {t['median']:.2f}, p95 {t['p95']:.2f}. "
    return "\n\n".join(
        [table(rows), f"{times}{found['failed']} edits failed to give an update.", cite(results)]
    )


def rounded(value: float | None, digits: int = 3) -> str:
    """A measure that may not be defined, to so many digits."""
    return "-" if value is None else f"{value:.{digits}g}"


def compare(files: Sequence[Results], n: int | None = None) -> str:
    """The edited models' metrics of several runs side by side, over the records all share."""
    for results in files:
        if results.header["kind"] != "run":
            raise BadInput(f"{results.path} is not of `bench run`: only runs are compared.")
    keys = [key for key in files[0].rows if all(key in f.rows for f in files)][:n]
    if not keys:
        raise BadInput("these runs have no records in common.")
    same = [Results(f.path, f.header, {k: f.rows[k] for k in keys}) for f in files]
    columns = [{line.name: line for line in runner.lines(f)} for f in same]
    names = [f"{chr(65 + i)}" for i in range(len(files))]
    rows = [["metric", "unedited (A)", *names]]
    for name in runner.METRICS:
        if all(name in c for c in columns):
            before = percent(columns[0][name].before, interval=False)
            rows.append([NAMES[name], before, *(percent(c[name].after) for c in columns)])
    totals = [runner.summary(f)["seconds"].get("total") for f in same]  # none: every edit failed
    rows.append(
        ["seconds per edit, median", "", *(f"{t['median']:.2f}" if t else "-" for t in totals)]
    )
    cited = [f"{name}: {cite(f, len(keys))}" for name, f in zip(names, files, strict=True)]
    return "\n\n".join([table(rows), f"n = {len(keys)} records that all runs share.", *cited])


def side_by_side(files: Mapping[str, Results], n: int | None = None) -> str:
    """A row per run, by its name: every measure of the edited models, and what an edit costs."""
    columns = {name: {line.name: line for line in runner.lines(f, n)} for name, f in files.items()}
    measures = [m for m in runner.METRICS if any(m in c for c in columns.values())]
    first = next(iter(columns.values()))
    unedited = [_mean(first.get(m), "before") for m in measures]
    rows = [
        ["", *(SHORT.get(m, m) for m in measures), "s, median", "s, p95", "peak"],
        ["unedited", *unedited, "", "", ""],
    ]
    for name, results in files.items():
        found = runner.summary(results, n)
        seconds = found["seconds"].get("total")
        times = [f"{seconds[k]:.2f}" for k in ("median", "p95")] if seconds else ["-", "-"]
        cells = [percent(columns[name][m].after) if m in columns[name] else "-" for m in measures]
        rows.append([name, *cells, *times, megabytes(found["peak"])])
    legend = "; ".join(f"{SHORT[m]}: {NAMES[m]}" for m in measures if m in SHORT)
    said = f"{legend}; peak: memory above the loaded model, the highest of all edits."
    shared, own = own_settings(files)
    settings = "\n".join(f"- {name}: {plain(values)}" for name, values in own.items())
    one = next(iter(files.values()))
    asked = min(len(f.rows) for f in files.values())
    parts = [table(rows), said, settings, cite(one, min(n or asked, asked), settings=shared)]
    return "\n\n".join(part for part in parts if part)


def own_settings(files: Mapping[str, Results]) -> tuple[JsonDict, dict[str, JsonDict]]:
    """What the settings of all runs share, and what is each one's own."""
    flat = {}
    for name, results in files.items():
        settings = dict(results.header["settings"])
        flat[name] = {**settings.pop("hparams"), **settings}
    first = next(iter(flat.values()))
    shared = {k: v for k, v in first.items() if all(s.get(k) == v for s in flat.values())}
    own = {name: {k: v for k, v in s.items() if k not in shared} for name, s in flat.items()}
    return shared, {name: values for name, values in own.items() if values}


def _mean(line: runner.Line | None, side: str) -> str:
    return "-" if line is None else percent(getattr(line, side), interval=False)


def cite(results: Results, n: int | None = None, settings: JsonDict | None = None) -> str:
    """One paragraph: what was measured, on what, and the command.

    settings  those to name; default: all of the results'
    """
    s = settings if settings is not None else results.header["settings"]
    e = results.header["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in e["versions"].items())
    count = "" if n is None else f", n = {n}"
    data = f"{s['data']} (sha256 {s['data_sha256'][:12]}), " if "data" in s else ""
    method = f"{s['method']}, " if "method" in s else ""
    intervals = "" if results.header["kind"] == "speed" else INTERVALS
    machine = e["accelerator"] if s["device"] == "cuda" and e["accelerator"] else e["cpu"]
    skip = {"data", "data_sha256", "model", "fingerprint", "device", "dtype", "method"}
    rest = "; ".join(
        f"{k} {_arms(v) if k == 'arms' else plain(v)}" for k, v in s.items() if k not in skip
    )
    return (
        f"{data}{method}model {s['model']} (fingerprint {s['fingerprint'][:12]}), "
        f"{s['dtype']} on {s['device']}{count}; {rest}. {machine}, {e['cores']} cores, "
        f"threads {e['threads']}, {e['platform']}; {versions}.{intervals}\n\n"
        f"    {e['command']}"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns padded; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def percent(value: Estimate, *, interval: bool = True) -> str:
    """ "62.0 [58.1, 65.7]", in per cent; "-" of nothing."""
    if math.isnan(value.mean):
        return "-"
    shown = f"{100 * value.mean:.1f}"
    return f"{shown} [{100 * value.low:.1f}, {100 * value.high:.1f}]" if interval else shown


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def read(paths: Sequence[Path]) -> list[Results]:
    """Raises BadFile."""
    return [Results.read(path) for path in paths]


def _chat_summary(results: Results) -> JsonDict:
    rows = [{**r, "estimate": r["estimate"].to_json()} for r in chatlist.table(results)]
    return {"table": rows}


def _group(of: str) -> str:
    return "all" if of == "all" else f"unedited answer {of}"


def _arms(arms: JsonDict) -> str:
    """What all arms share, then what is each one's own."""
    first = next(iter(arms.values()))
    shared = {k: v for k, v in first.items() if all(a.get(k) == v for a in arms.values())}
    own = {n: {k: v for k, v in a.items() if k not in shared} for n, a in arms.items()}
    told = "; ".join(f"{name}: {plain(values)}" for name, values in own.items())
    return f"with {plain(shared)} ({told})"


def plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={plain(v)}" for k, v in value.items()) or "none"
    return str(value)
