"""Average indirect effects on a model, as in Meng et al. 2022, figure 2: docs/tracing.md.

    python scripts/average_effects.py KNOWN_1000.json --n 50 --out effects.jsonl

For the first N facts that the model knows (its likeliest next token begins the attribute), the
hidden state, the MLPs and the attentions are restored at the subject's last token and at the
prompt's last token. A run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.errors import LLMEditError  # noqa: E402
from engine.evaluate.bootstrap import estimate  # noqa: E402
from engine.lm import LM  # noqa: E402
from engine.tokens import last_token, target_ids  # noqa: E402
from engine.trace import SITES, trace  # noqa: E402

PLACES = ("subject", "last")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("effects.jsonl"))
    given = parser.parse_args()
    written = given.out.read_text().splitlines() if given.out.exists() else []
    done = [json.loads(line) for line in written]
    lm = _finish(LM.load(given.model, dtype="fp32"))
    facts = json.loads(given.data.read_text(encoding="utf-8"))
    seen = max((row["fact"] for row in done), default=-1)
    with given.out.open("a", encoding="utf-8") as file:
        for row in _rows(lm, facts, seen + 1, given.samples, given.n - len(done)):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done.append(row)
            print(f"{len(done)} of {given.n}: {row['prompt']}", file=sys.stderr)
    report(done[: given.n])


def _rows(lm: LM, facts: list[Any], first: int, samples: int, n: int) -> Iterator[dict[str, Any]]:
    """The traced facts that the model knows, from the fact `first` on, `n` of them."""
    for fact in range(first, len(facts)):
        if n <= 0:
            return
        prompt = lm.statement(facts[fact]["prompt"])
        try:
            places = (last_token(prompt, facts[fact]["subject"]), len(prompt.ids) - 1)
            wanted = target_ids(lm.tokenizer, prompt, facts[fact]["attribute"])[0]
            if places[0] == places[1] or int(lm.logits([prompt])[0].argmax()) != wanted:
                continue
            found = _finish(
                trace(lm, prompt, facts[fact]["subject"], positions=places, samples=samples)
            )
        except LLMEditError as error:
            print(f"left out {facts[fact]['prompt']!r}: {error}", file=sys.stderr)
            continue
        n -= 1
        yield {
            "fact": fact,
            "prompt": facts[fact]["prompt"],
            "clean": found.clean,
            "corrupted": found.corrupted,
            "window": found.window,
            "effects": {
                kind: dict(zip(PLACES, rows, strict=True)) for kind, rows in found.effects.items()
            },
        }


def report(rows: list[dict[str, Any]]) -> None:
    """A table of average effects in percentage points: the layer where each is largest."""
    if not rows:
        print("no facts")
        return
    clean, corrupted = (statistics.mean(r[k] for r in rows) for k in ("clean", "corrupted"))
    print(f"n = {len(rows)}, window {rows[0]['window']}; p {clean:.3f}, noised {corrupted:.3f}\n")
    print("| restored | at | largest AIE | at layer | mean over layers |")
    print("|---|---|---|---|---|")
    for kind in SITES:
        for place in PLACES:
            table = [row["effects"][kind][place] for row in rows]
            means = [statistics.mean(column) for column in zip(*table, strict=True)]
            best = max(range(len(means)), key=means.__getitem__)
            at = estimate([100 * row[best] for row in table])
            print(
                f"| {kind} | {place} token | {at.mean:.1f} [{at.low:.1f}, {at.high:.1f}] "
                f"| {best} | {100 * statistics.mean(means):.1f} |"
            )


def _finish(work: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


if __name__ == "__main__":
    main()
