"""Sequences of edits side by side: what each has left after so many, as tables and as curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..evaluate.bootstrap import Estimate
from . import sequence
from .report import cite, own_settings, percent, plain, rounded, table
from .results import JsonDict, Results

Courses = Mapping[str, Mapping[int, JsonDict]]  # name -> number of facts -> state

AGAIN = ", solved again"


def courses(files: Mapping[str, Results]) -> dict[str, dict[int, JsonDict]]:
    """The states of every sequence, by the number of facts; those of its closed-form edits solved
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
    """A table per measure, a row per sequence, a column per number of facts."""
    found = courses(files)
    numbers = sorted({number for course in found.values() for number in course})
    tables = [
        _table("all said so far, free decoding (%)", found, numbers[1:], _said),
        _table("of their paraphrases (%)", found, numbers[1:], _rephrased),
        _table("perplexity", found, numbers, lambda row: rounded(row["perplexity"], 4)),
        _table("‖Δ‖/‖W‖, the largest of all weights", found, numbers[1:], _weight),
    ]
    times = [["", "s an edit, median", "s, p95", "s a fact", "facts", "edits that failed"]]
    for name, results in files.items():
        told = sequence.summary(results)
        seconds = [f"{told['seconds'][k]:.2f}" for k in ("median", "p95", "fact")]
        times.append([name, *seconds, str(told["facts"]), str(told["failed"])])
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


_PERPLEXITY = "perplexity"
_PANELS: dict[str, Callable[[JsonDict], float | None]] = {
    "all said so far (%)": lambda row: 100 * row["said"]["mean"] if "said" in row else None,
    "of their paraphrases (%)": lambda row: (
        100 * row["rephrased"]["mean"] if "rephrased" in row else None
    ),
    _PERPLEXITY: lambda row: row["perplexity"],
    "‖Δ‖/‖W‖": lambda row: row.get("weight"),
}


def _lines(found: Courses, of: Callable[[JsonDict], float | None]) -> dict[str, dict[int, float]]:
    """Of each course that was measured so, the measure by number of facts."""
    lines = {}
    for name, course in found.items():
        points = {n: of(row) for n, row in sorted(course.items()) if n}
        if known := {n: value for n, value in points.items() if value is not None}:
            lines[name] = known
    return lines


def draw(files: Mapping[str, Results], path: Path) -> None:
    """The same as curves over the number of facts; SVG or PNG by the name's ending.

    Raises ImportError without matplotlib, OSError.
    """
    import matplotlib
    from matplotlib.figure import Figure

    found = courses(files)
    lines = {title: _lines(found, of) for title, of in _PANELS.items()}
    panels = {title: own for title, own in lines.items() if own}
    colours = {name: f"C{i}" for i, name in enumerate(files)}
    figure = Figure(figsize=(3.3 * len(panels), 3.4), layout="constrained")
    every = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    for title, axes in every.items():
        for name, points in panels[title].items():
            line = "x--" if name.endswith(AGAIN) else "o-"
            colour = colours[name.removesuffix(AGAIN)]
            axes.plot(points.keys(), points.values(), line, color=colour, label=name, markersize=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("facts")
        axes.set_title(title, fontsize=10)
        values = [value for points in panels[title].values() for value in points.values()]
        if "%" in title:
            axes.set_ylim(0, 102)
        elif max(values) > 10 * min(values) > 0:
            axes.set_yscale("log")
    unedited = next((course[0]["perplexity"] for course in found.values() if 0 in course), None)
    if unedited is not None:
        every[_PERPLEXITY].axhline(unedited, color="grey", linewidth=0.8, linestyle=":")
    handles = every[_PERPLEXITY].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    with matplotlib.rc_context({"svg.hashsalt": "llm-edit", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
