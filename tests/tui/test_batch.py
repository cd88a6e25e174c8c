"""Facts of a file, corrected one after the other: on the screen, in lines, and without either."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import Opened
from scenes import LONG, QUESTION, ask, reach, settle
from test_chat import screen_text, texts
from textual.widgets import DataTable

from engine.errors import BadFile
from engine.events import JobEnded, Problem
from engine.requests import Request
from tests.cli.small import QUESTION as ASKED
from tests.cli.small import hparams
from tests.tui.tiny_chat import Make
from tui.batch import Batch, groups
from tui.plain import PlainFront
from tui.screens.batch import BatchScreen
from tui.views import Snapshot

FACTS = (
    {"prompt": QUESTION, "target_new": "Canberra", "subject": "Australia"},
    {"prompt": LONG, "target_new": "Paris", "subject": "Space Needle"},
    {"prompt": "The mother tongue of Ada is", "target_new": "French", "subject": "Ada"},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    return path


@dataclasses.dataclass
class Ended:
    """A job that has ended: what a batch looks at."""

    state: str
    result: Any = None
    events: tuple[Any, ...] = ()

    def cancel(self) -> None:
        self.state = "cancelled"


class Refusing:
    """An assistant that takes no correction."""

    def __init__(self, state: str = "failed", method: str = "r-rome") -> None:
        self.state = state
        self.method = method
        self.asked: list[dict[str, Any]] = []

    def snapshot(self) -> Snapshot:
        return Snapshot(model="tiny", method=self.method)

    def correct_batch(self, requests: list[Request], **about: Any) -> Ended:
        return self.correct(", ".join(r.target_new for r in requests), **about)

    def correct(self, target: str, **about: Any) -> Ended:
        self.asked.append({"target": target, **about})
        problem = Problem(error="BadRequest", message="no.", remedy="Another.")
        ended = JobEnded(state=self.state, seconds=2.0)
        return Ended(self.state, events=(problem, ended))


def test_a_question_in_a_file_is_asked_and_a_statement_is_continued(file: Path) -> None:
    batch, assistant = Batch.read(file), Refusing()
    while (job := batch.begin_next(assistant)) is not None:
        batch.ended(job)
    assert [call["statement"] for call in assistant.asked] == [False, False, True]
    assert [call["subject"] for call in assistant.asked] == ["Australia", "Space Needle", "Ada"]


def test_a_refused_fact_says_why_and_the_next_one_is_taken_up(file: Path) -> None:
    batch = Batch.read(file)
    assert math.isnan(batch.seconds_left())
    (row,) = batch.ended(batch.begin_next(Refusing()))
    assert (row.state, row.said, row.seconds) == ("refused", "no. Another.", 2.0)
    assert batch.progress() == "1/3 · 4.0 s left"
    assert batch.share() == pytest.approx(1 / 3)
    assert batch.begin_next(Refusing()) is not None
    assert batch.group == [batch.rows[1]]
    assert batch.told(batch.rows[0]) == f"1/3 refused, 2.0 s: {QUESTION} → Canberra (no. Another.)"


def test_a_method_for_many_takes_the_facts_that_stand_together(tmp_path: Path) -> None:
    lines = (
        *FACTS,
        {"prompt": "Where is Rome?", "target_new": "Peru"},  # its subject is still to be found
        {"prompt": "Where is Oslo?", "target_new": "Peru", "subject": "Oslo", "method": "r-rome"},
    )
    file = tmp_path / "many.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    batch, assistant = Batch.read(file), Refusing(method="memit")
    job = batch.begin_next(assistant)
    assert batch.progress() == "0/5 · 3 at once"
    assert batch.question == f"3 facts: {QUESTION} …"
    assert batch.target == "Canberra, Paris, French"
    assert [row.seconds for row in batch.ended(job)] == pytest.approx([2 / 3] * 3)
    while (job := batch.begin_next(assistant)) is not None:
        batch.ended(job)
    assert [call["target"] for call in assistant.asked] == [
        "Canberra, Paris, French", "Peru", "Peru",
    ]  # fmt: skip
    assert batch.counts() == {"refused": 5}
    facts = [row.fact for row in batch.rows]
    assert [len(group) for group in groups(facts, "memit", one_by_one=True)] == [1] * 5


def test_a_cancel_stops_what_is_left_and_counts_it(file: Path) -> None:
    batch = Batch.read(file)
    batch.ended(batch.begin_next(Refusing()))
    batch.ended(batch.begin_next(Refusing("cancelled")))
    assert batch.begin_next(Refusing()) is None
    assert [row.said for row in batch.rows[1:]] == ["Nothing was changed.", "Not begun."]
    assert batch.finished
    assert batch.summary() == "facts.jsonl: 3 facts, 1 refused, 2 stopped; 4.0 s."
    assert batch.tone == "bad"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no facts"),
        ("{}\n", "bad.jsonl:1: missing"),
        ("no json", "is not JSON"),
        (None, "there is no such file"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_edited(
    tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "bad.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadFile, match=why):
        Batch.read(path)


# -- on the screen -----------------------------------------------------------------------------


async def test_every_fact_has_a_row_and_its_end_in_words(opened: Opened, file: Path) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("step", 25)  # in the second fact, of 20 steps each
        await ask(pilot, f"/fix --file {file}", wait=False)
        await reach(pilot, gate)
        shown = screen_text(pilot)
        assert "Correct 3 facts · facts.jsonl" in shown
        assert "✓ took" in shown
        assert "▸ running" in shown
        assert "· waiting" in shown
        assert "1/3 · " in shown
        assert "s left" in shown
        gate.open()
        await settle(pilot)
        shown = screen_text(pilot)
        assert shown.count("✓ took") == 3
        assert "3/3" in shown
        assert "facts.jsonl: 3 facts, 3 took;" in shown
        targets = [edit.target for edit in pilot.app.assistant.edits]
        assert targets == ["Canberra", "Paris", "French"]
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, BatchScreen)
        assert texts(pilot, "note")[-1].startswith("facts.jsonl: 3 facts, 3 took;")


async def test_the_row_under_the_cursor_says_what_came_of_it(opened: Opened, file: Path) -> None:
    async with opened(succeed=False) as pilot:
        await ask(pilot, f"/batch {file}")
        pilot.app.screen.query_one(DataTable).move_cursor(row=0)
        await pilot.pause()
        assert "✗ not taken" in screen_text(pilot)
        assert "Canberra became likelier, but the model still says" in screen_text(pilot)


async def test_escape_stops_the_rest_and_keeps_what_was_done(opened: Opened, file: Path) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("step", 25)
        await ask(pilot, f"/batch {file}", wait=False)
        await reach(pilot, gate)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, BatchScreen)
        gate.open()
        await settle(pilot)
        shown = screen_text(pilot)
        assert "✓ took" in shown
        assert shown.count("■ stopped") == 2
        assert [edit.state for edit in pilot.app.assistant.edits] == ["applied", "cancelled"]


async def test_hidden_it_goes_on_and_can_be_shown_again(opened: Opened, file: Path) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("step", 25)
        await ask(pilot, f"/batch {file}", wait=False)
        await reach(pilot, gate)
        await pilot.press("h")
        await settle(pilot, jobs=False)
        assert "1/3 · " in screen_text(pilot).splitlines()[0]
        await ask(pilot, f"/batch {file}", wait=False)  # not a second one
        assert [row.state for row in pilot.app.screen.facts.rows] == ["took", "running", "waiting"]
        await pilot.press("h")
        await ask(pilot, "/batch", wait=False)
        assert isinstance(pilot.app.screen, BatchScreen)
        gate.open()
        await settle(pilot)
        assert len(pilot.app.assistant.edits) == 3


async def test_without_a_batch_there_is_none_to_show(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot, "/batch")
        assert texts(pilot, "note") == [
            "no file of facts is being worked on. /batch FILE begins one."
        ]


# -- in lines, on a real model -----------------------------------------------------------------


def test_in_plain_mode_each_fact_is_one_line(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    facts = [
        {"prompt": ASKED, "target_new": "Canberra", "subject": "Australia"},
        {"prompt": "Where is Rome?", "target_new": "Peru"},
    ]
    file.write_text("\n".join(map(json.dumps, facts)))
    assistant, out = make(), io.StringIO()
    front = PlainFront(assistant, out=out, err=io.StringIO())
    front.line(f"/batch {file}")
    lines = out.getvalue().splitlines()
    edits = assistant.snapshot().edits
    assert [edit.target for edit in edits] == ["Canberra", "Peru"]
    assert lines[0].startswith("1/2 ")
    assert f"{ASKED} → Canberra" in lines[0]
    assert lines[-1].startswith("two.jsonl: 2 facts, ")
    assert len(lines) == 3
    assert front.failed == (not all(edit.success for edit in edits))


def test_in_plain_mode_a_method_for_many_makes_one_edit(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    facts = [
        {"prompt": ASKED, "target_new": "Canberra", "subject": "Australia"},
        {"prompt": "Where is Rome?", "target_new": "Peru", "subject": "Rome"},
    ]
    file.write_text("\n".join(map(json.dumps, facts)))
    known = {k: v for k, v in hparams(tmp_path).items() if k != "both"}
    assistant, out = make(method="memit", hp=known), io.StringIO()
    PlainFront(assistant, out=out, err=io.StringIO()).line(f"/batch {file}")
    (edit,) = assistant.snapshot().edits
    assert (edit.method, edit.target) == ("memit", "Canberra, Peru")
    lines = out.getvalue().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["1/2", "2/2", "two.jsonl:"]
    assert f"{ASKED} → Canberra" in lines[0]
    assert "Where is Rome? → Peru" in lines[1]


def test_a_fact_keeps_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    fact = Request(prompt="Where?", target_new="Here", rephrases=("Tell me where.",), chat=True)
    file.write_text(json.dumps(fact.to_json()))
    assert Batch.read(file).rows[0].fact.request == fact
