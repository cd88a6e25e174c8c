"""Benchmark files: CounterFact (ROME's records and flat ones) and ZsRE (MEND's). No torch."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadFile, BadInput, BadRequest, UnknownName, unreadable
from ..requests import Probe, Request

ENDINGS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
JsonDict = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One fact and what to measure after it was edited in.

    id          unique within its data set
    request     `target_old` is the true answer; rephrases and neighbours are in it
    neighbours  prompts that must not change, each with its right answer
    contrast    the neighbours' right answer competes with `target_new` (CounterFact), so that
                NS is defined; otherwise (ZsRE) the neighbour is an unrelated question
                that keeps its answer or not
    """

    id: str
    request: Request
    neighbours: tuple[Probe, ...]
    contrast: bool


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The records of one file.

    format   a key of FORMATS
    sha256   of the file as stored
    skipped  reason -> how many records cannot be used as an edit and were left out
    """

    name: str
    path: Path
    format: str
    sha256: str
    records: tuple[Record, ...]
    skipped: dict[str, int] = field(default_factory=dict)


def folder() -> Path | None:
    """The folder named by LLM_EDIT_DATA."""
    chosen = os.environ.get("LLM_EDIT_DATA")
    return Path(chosen).expanduser() if chosen else None


def find(name: str) -> Path:
    """A file by its path, or by its name (ending optional) in the folder LLM_EDIT_DATA.

    Raises BadInput when there is no such folder, UnknownName when the folder has no such file.
    """
    direct = Path(name).expanduser()
    if direct.is_file():
        return direct
    where = folder()
    if where is None or not where.is_dir():
        raise BadInput(
            f"there is no data file {name!r}.",
            "Give the path of a file, or set LLM_EDIT_DATA to the folder that holds it.",
        )
    for ending in ("", *ENDINGS):
        if (where / f"{name}{ending}").is_file():
            return where / f"{name}{ending}"
    raise UnknownName("data file", name, (p.name for p in available(where)))


def available(where: Path) -> list[Path]:
    """Files in a folder that may hold records, by name."""
    return sorted(p for p in where.iterdir() if p.name.endswith(ENDINGS))


def load(path: Path, n: int | None = None, *, skip: int = 0) -> Dataset:
    """`n` usable records of a file behind the first `skip` (all when n is None), in file order.

    Raises BadFile naming the file and the line or the record.
    """
    raw, rows = _read(path)
    if not rows:
        raise BadFile(path, None, "has no records.")
    kind = _format(path, rows[0])
    make = FORMATS[kind]
    records: list[Record] = []
    skipped: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        if n is not None and len(records) == skip + n:
            break
        made = _record(path, number, row, make)
        if isinstance(made, str):
            skipped[made] += 1
        else:
            records.append(made)
    return Dataset(
        name=_stem(path) + (f"-from-{skip}" if skip else ""),
        path=path,
        format=kind,
        sha256=hashlib.sha256(raw).hexdigest(),
        records=tuple(records[skip:]),
        skipped=dict(skipped),
    )


def describe(path: Path) -> tuple[str, int] | None:
    """(format, number of records) of a file; None when it is in none of the formats."""
    try:
        _, rows = _read(path)
        return (_format(path, rows[0]), len(rows)) if rows else None
    except BadFile:
        return None


def _stem(path: Path) -> str:
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if path.name.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def _read(path: Path) -> tuple[bytes, list[Any]]:
    """The stored bytes, and the JSON values: of an array, or one a line in a .jsonl file."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadFile(path, None, unreadable(error)) from error
    if ".jsonl" in path.name:
        return raw, _lines(path, text)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadFile(path, error.lineno, f"is not JSON: {error.msg}.") from error
    if not isinstance(value, list):
        raise BadFile(path, None, "is not a list of records.")
    return raw, value


def _lines(path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadFile(path, number, f"is not JSON: {error.msg}.") from error
    return rows


def _format(path: Path, row: Any) -> str:
    """Told by the fields of the first record."""
    if isinstance(row, dict):
        if "requested_rewrite" in row and "paraphrase_prompts" in row:
            return "counterfact"
        if "locality_ground_truth" in row and "rephrase_prompt" in row:
            return "counterfact-flat"
        if {"src", "alt", "rephrase"} <= set(row):
            return "zsre"
    raise BadFile(path, None, f"is in none of the formats that bench reads ({', '.join(FORMATS)}).")


def _record(path: Path, number: int, row: Any, make: Callable[[JsonDict], Record]) -> Record | str:
    """A record, or the reason why it cannot be used as an edit."""
    try:
        record = make(row)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadFile(path, None, f"record {number} is broken: {what}.") from error
    wrong = [p for p in _texts(record) if not isinstance(p, str) or not p.strip()]
    if wrong:
        raise BadFile(path, None, f"record {number} is broken: {wrong[0]!r} where text belongs.")
    request = record.request
    if (request.target_old or "").casefold() == request.target_new.casefold():
        return "the target is a true answer"
    try:
        request.check()
    except BadRequest as error:
        return {
            "SubjectNotFound": "the subject is not in the prompt",
            "SubjectAmbiguous": "the subject is in the prompt twice",
        }.get(error.kind, error.message)
    return record


def _texts(record: Record) -> Iterable[Any]:
    request = record.request
    yield from (request.prompt, request.target_new, request.subject, *request.rephrases)
    for probe in record.neighbours:
        yield from (probe.prompt, probe.answer)


def _counterfact(row: JsonDict) -> Record:
    """ROME's records: two paraphrases, ten neighbours whose right answer is `target_true`."""
    rewrite = row["requested_rewrite"]
    true = rewrite["target_true"]["str"].strip()
    neighbours = tuple(row["neighborhood_prompts"])
    request = Request(
        prompt=rewrite["prompt"].replace("{}", rewrite["subject"]),
        subject=rewrite["subject"],
        target_new=rewrite["target_new"]["str"].strip(),
        target_old=true,
        rephrases=tuple(row["paraphrase_prompts"]),
        neighbours=neighbours,
    )
    probes = tuple(Probe(prompt=p, answer=true) for p in neighbours)
    return Record(id=str(row["case_id"]), request=request, neighbours=probes, contrast=True)


def _counterfact_flat(row: JsonDict) -> Record:
    """Flat records: one paraphrase and one neighbour each."""
    request = Request(
        prompt=row["prompt"],
        subject=row["subject"],
        target_new=row["target_new"].strip(),
        target_old=row["ground_truth"].strip(),
        rephrases=(row["rephrase_prompt"],),
        neighbours=(row["locality_prompt"],),
    )
    probe = Probe(prompt=row["locality_prompt"], answer=row["locality_ground_truth"].strip())
    return Record(id=str(row["case_id"]), request=request, neighbours=(probe,), contrast=True)


def _zsre(row: JsonDict) -> Record:
    """MEND's records; the neighbour is an unrelated Natural Questions question."""
    target = row["alt"].strip()
    answers = [a.strip() for a in row.get("answers") or [row.get("pred", "")]]
    # The true answer that equals the target, if any: such a record edits nothing.
    true = next((a for a in answers if a.casefold() == target.casefold()), answers[0])
    probes: tuple[Probe, ...] = ()
    if "loc" in row:  # the portability files of ZsRE have none
        asked = row["loc"].removeprefix("nq question: ").strip().rstrip("?") + "?"
        probes = (Probe(prompt=asked, answer=row["loc_ans"].strip()),)
    request = Request(
        prompt=row["src"],
        subject=row["subject"],
        target_new=target,
        target_old=true or None,
        rephrases=(row["rephrase"],),
        neighbours=tuple(p.prompt for p in probes),
    )
    # `case_id` is in the training file only; a question and its target name a record as well.
    name = f"{row['src']}\n{target}"
    key = str(row.get("case_id", hashlib.sha256(name.encode()).hexdigest()[:12]))
    return Record(id=key, request=request, neighbours=probes, contrast=False)


FORMATS: dict[str, Callable[[JsonDict], Record]] = {
    "counterfact": _counterfact,
    "counterfact-flat": _counterfact_flat,
    "zsre": _zsre,
}
