"""Sequences of edits side by side: what each has left after so many, as tables and as curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..evaluate.bootstrap import Estimate
from . import sequence
from .report import cite, own_settings, percent, plain, rounded, table
from .results import JsonDict, Results

Courses = Mapping[str, Mapping[int, JsonDict]]  # name -> number of edits -> state

AGAIN = ", solved again"


def courses(files: Mapping[str, Results]) -> dict[str, dict[int, JsonDict]]:
    """The states of every sequence, by the number of edits; those of its closed-form edits solved
    again together are a course of their own."""
    found: dict[str, dict[int, JsonDict]] = {}
    for name, results in files.items():
        for key, row in sequence.summary(results)["states"].items():
            kind, _, number = key.partition(":")
            if "perplexity" in row:
                own = name if kind == "at" else name + AGAIN
                found.setdefault(own, {})[int(number)] = row
    return found


def side_by_side(files: Mapping[str, Results]) -> str:
    """A table per measure, a row per sequence, a column per number of edits."""
    found = courses(files)
    numbers = sorted({number for course in found.values() for number in course})
    tables = [
        _table("all said so far, free decoding (%)", found, numbers[1:], _said),
        _table("of their paraphrases (%)", found, numbers[1:], _rephrased),
        _table("perplexity", found, numbers, lambda row: rounded(row["perplexity"], 4)),
        _table("‖Δ‖/‖W‖, the largest of all weights", found, numbers[1:], _weight),
    ]
    times = [["", "s an edit, median", "s, p95", "edits", "of them failed"]]
    for name, results in files.items():
        told = sequence.summary(results)
        edits = sum(key.startswith("edit:") for key in results.rows)
        seconds = [f"{told['seconds'][k]:.2f}" for k in ("median", "p95")]
        times.append([name, *seconds, str(edits), str(told["failed"])])
    shared, own = own_settings(files)
    settings = "\n".join(f"- {name}: {plain(values)}" for name, values in own.items())
    last = cite(next(iter(files.values())), settings=shared)
    return "\n\n".join([*tables, table(times), settings, last])


def _table(
    measure: str, found: Courses, numbers: list[int], cell: Callable[[JsonDict], str]
) -> str:
    rows = [[measure, *map(str, numbers)]]
    for name, course in found.items():
        rows.append([name, *(cell(course[n]) if n in course else "-" for n in numbers)])
    return table(rows)


def _said(row: JsonDict) -> str:
    return percent(Estimate(**row["said"]))


def _rephrased(row: JsonDict) -> str:
    return percent(Estimate(**row["rephrased"])) if "rephrased" in row else "-"


def _weight(row: JsonDict) -> str:
    return rounded(row["weight"])


def draw(files: Mapping[str, Results], path: Path) -> None:
    """The same as curves over the number of edits; SVG or PNG by the name's ending.

    Raises ImportError without matplotlib, OSError.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels: list[tuple[str, Callable[[JsonDict], float | None]]] = [
        ("all said so far (%)", lambda row: 100 * row["said"]["mean"] if "said" in row else None),
        ("perplexity", lambda row: row["perplexity"]),
        ("‖Δ‖/‖W‖", lambda row: row.get("weight")),
    ]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    every = figure.subplots(1, len(panels))
    found = courses(files)
    for axes, (title, measure) in zip(every, panels, strict=True):
        for name, course in found.items():
            points = [(n, measure(row)) for n, row in sorted(course.items()) if n]
            known = [(n, value) for n, value in points if value is not None]
            again = name.endswith(AGAIN)
            line = "x--" if again else "o-"
            axes.plot([n for n, _ in known], [v for _, v in known], line, label=name, markersize=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("edits")
        axes.set_title(title, fontsize=10)
    every[0].set_ylim(0, 102)
    lowest, highest = every[1].get_ylim()
    if highest > 10 * lowest > 0:
        every[1].set_yscale("log")
    unedited = next((course[0]["perplexity"] for course in found.values() if 0 in course), None)
    if unedited is not None:
        every[1].axhline(unedited, color="grey", linewidth=0.8, linestyle=":")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    with matplotlib.rc_context({"svg.hashsalt": "llm-edit", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
