"""Corrections made in chat: 40 questions, each corrected to something else, each undone.

The list (hparams/chat_corrections.jsonl) and this scorer were fixed before anything was tuned
on them. Every question is asked through the chat path (chat template, fresh context, greedy,
at most 64 tokens, own stopping) and corrected through the same `engine.correct` as the app.

success     the answer after the edit equals the target in normal form and ended by itself
kept        a neighbour's head (first sentence, at most 12 words) is what it was
right       the unedited answer's first sentence names the right answer, and it ended by itself;
            a question or a neighbour that is not right is scored apart, not left out
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import anchors
from ..correct import correct
from ..errors import BadFile, EditFailed, unreadable
from ..evaluate.bootstrap import estimate
from ..evaluate.normalise import equals, first_sentence, mentions, normalise, same_head
from ..events import Event, Loading
from ..ledger import Ledger
from ..lm import LM
from ..paths import packaged
from ..requests import Request
from .exact import check_undone, fixed_logits
from .once import described, hparams
from .results import JsonDict, Results

MAX_TOKENS = 64
KINDS = ("country", "person", "work", "company", "science")

Group = Callable[[JsonDict], bool]

# By the unedited answer.
GROUPS: dict[str, Group] = {
    "all": lambda row: True,
    "right": lambda row: bool(row["right"]),
    "wrong or rambling": lambda row: not row["right"],
}

Arms = Mapping[str, Mapping[str, str]]  # name -> hyper-parameter overrides
ARMS: Arms = {"anchored": {}, "not anchored": {"anchors": "0"}}


@dataclass(frozen=True)
class Question:
    """A question and its right answers, any of which will do."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """A question, what it is corrected to, and the same question about five other subjects."""

    id: str
    kind: str
    question: Question
    subject: str
    target: str
    neighbours: tuple[Question, ...]


def read_list(path: Path | None = None) -> list[Item]:
    """The packaged list, or another of its form. Raises BadFile naming the file and the line."""
    path = path or packaged("chat_corrections.jsonl")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, None, unreadable(error)) from error
    items = [_item(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise BadFile(path, None, "has no questions.")
    return items


def _item(path: Path, number: int, line: str) -> Item:
    try:
        row = json.loads(line)
        return Item(
            id=row["id"],
            kind=row["kind"],
            question=Question(row["question"], tuple(row["answer"])),
            subject=row["subject"],
            target=row["target"],
            neighbours=tuple(
                Question(n["question"], tuple(n["answer"])) for n in row["neighbours"]
            ),
        )
    except json.JSONDecodeError as error:
        raise BadFile(path, number, f"is not JSON: {error.msg}.") from error
    except (KeyError, TypeError) as error:
        raise BadFile(path, number, f"is not a question of the list ({error!r}).") from error


def run(
    lm: LM,
    items: Sequence[Item],
    results: Results,
    *,
    method: str,
    arms: Arms = ARMS,
    seed: int = 0,
) -> Generator[Event, None, None]:
    """Ask, correct, ask again and undo, for every item under every arm; resumable.

    Rows: "before:<id>" (unedited answers), "<arm>:<id>". Raises UndoNotExact.
    """
    fresh = fixed_logits(lm)
    done, total = 0, len(items) * (len(arms) + 1)
    for item in items:
        before = results.rows.get(f"before:{item.id}")
        if before is None:
            row = {"arm": "before", "kind": item.kind, "replies": _ask(lm, item)}
            before = results.add(f"before:{item.id}", row)
        done += 1
        for arm, hp in arms.items():
            key = f"{arm}:{item.id}"
            if key not in results.rows:
                row = yield from _correct(lm, item, before["replies"], method, dict(hp), seed)
                check_undone(lm, fresh, str(row["edit"]))
                results.add(key, {"arm": arm, "kind": item.kind, **row, "exact": True})
            done += 1
            yield Loading(stage="bench", done=done, total=total, unit="questions")


def _correct(
    lm: LM, item: Item, before: Sequence[JsonDict], method: str, hp: dict[str, str], seed: int
) -> Generator[Event, None, JsonDict]:
    """One correction and what came of it; the ledger it was made in is thrown away."""
    request = request_for(item)
    unedited = score(item, before, before)
    if unedited["success"]:  # nothing to correct: told, and counted apart
        return {"edit": "", "error": "the unedited model says the target", **unedited}
    ledger = Ledger()
    try:
        outcome = yield from correct(
            lm, ledger, request, method=method, overrides=hp, probes=False, seed=seed
        )
    except EditFailed as error:
        return {"edit": "", "error": str(error), **unedited}
    with lm.active(ledger.patches()):
        after = _ask(lm, item)
    edit = ledger.undo()
    held = anchors.names(request, int(edit.hparams.get("anchors") or 0))
    return {
        "edit": edit.id,
        "error": "",
        "hparams": edit.hparams,
        "seconds": outcome.seconds,
        **score(item, before, after, held),
    }


def request_for(item: Item) -> Request:
    """The correction of an item. What tests an edit is kept out of its anchors."""
    return Request(
        prompt=item.question.text,
        subject=item.subject,
        target_new=item.target,
        neighbours=tuple(n.text for n in item.neighbours),
        chat=True,
    )


def _ask(lm: LM, item: Item) -> list[JsonDict]:
    """The question itself, then its neighbours: {text, stopped}."""
    replies = []
    for question in (item.question, *item.neighbours):
        reply = lm.reply(lm.render(question.text), max_tokens=MAX_TOKENS)
        replies.append({"text": reply.text, "stopped": reply.reason == "stop"})
    return replies


def score(
    item: Item,
    before: Sequence[JsonDict],
    after: Sequence[JsonDict],
    held: Sequence[str] = (),
) -> JsonDict:
    """One correction judged; `before` and `after` as `_ask` gives them.

    held  names whose keys anchored the edit: a neighbour asked about one of them would be
          marked, because it was held in its place
    """
    asked = {normalise(item.question.text.replace(item.subject, name)) for name in held}
    neighbours = [
        {
            "question": question.text,
            "before": b["text"],
            "after": a["text"],
            "right": right(question, b),
            "kept": same_head(b["text"], a["text"]),
            "anchor": normalise(question.text) in asked,
        }
        for question, b, a in zip(item.neighbours, before[1:], after[1:], strict=True)
    ]
    return {
        "question": item.question.text,
        "target": item.target,
        "before": before[0]["text"],
        "after": after[0]["text"],
        "stopped": after[0]["stopped"],
        "right": right(item.question, before[0]),
        "success": equals(after[0]["text"], item.target) and after[0]["stopped"],
        "neighbours": neighbours,
    }


def right(question: Question, reply: JsonDict) -> bool:
    """Whether an unedited answer is right: named in its first sentence, and it stopped."""
    return bool(reply["stopped"]) and mentions(first_sentence(reply["text"]), question.answers)


def settings_of(lm: LM, *, method: str, arms: Arms, seed: int, path: Path | None) -> JsonDict:
    """What a results file of this benchmark is about."""
    path = path or packaged("chat_corrections.jsonl")
    return {
        "list": path.name,
        "list_sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        **described(lm),
        "method": method,
        "arms": {name: hparams(lm, method, hp).to_json() for name, hp in arms.items()},
        "seed": seed,
        "max_tokens": MAX_TOKENS,
    }


def table(results: Results) -> list[JsonDict]:
    """One row per arm, measure and group: {arm, measure, of, estimate, hits, things}.

    An edit that failed counts as not corrected; a question whose unedited answer is the
    target already is in none of the groups (`already` tells how many there are). The
    bootstrap draws questions: neighbours come with theirs, and count each for one.
    """
    found: list[JsonDict] = []
    for arm in results.header["settings"]["arms"]:
        rows = [r for r in results.of(arm=arm) if not (r["success"] and r["error"])]
        for of, member in GROUPS.items():
            asked = [[bool(r["success"])] if member(r) else [] for r in rows]
            found.append({"arm": arm, "measure": "corrected", "of": of, **_share(asked)})
        for of, member in GROUPS.items():
            kept = [[bool(n["kept"]) for n in r["neighbours"] if member(n)] for r in rows]
            found.append({"arm": arm, "measure": "kept", "of": of, **_share(kept)})
    return found


def anchored(results: Results) -> int:
    """Neighbours that were among the anchors of the edit they test: should be none."""
    arms = results.header["settings"]["arms"]
    rows = [row for arm in arms for row in results.of(arm=arm)]
    return sum(bool(n["anchor"]) for row in rows for n in row["neighbours"])


def already(results: Results) -> int:
    """Questions whose unedited answer was the target, so that nothing could be corrected."""
    arm = next(iter(results.header["settings"]["arms"]))
    return sum(bool(r["success"] and r["error"]) for r in results.of(arm=arm))


def _share(groups: Sequence[Sequence[bool]]) -> JsonDict:
    """The share of hits among all things, with an interval over the groups."""
    return {
        "estimate": estimate(
            [sum(g) / len(g) if g else 0.0 for g in groups], weights=[len(g) for g in groups]
        ),
        "hits": sum(map(sum, groups)),
        "things": sum(map(len, groups)),
    }
