"""The list is well-formed, and its scorer counts what it says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine import anchors
from engine.bench import chatlist
from engine.bench.chatlist import Item, Question
from engine.bench.report import chat_table
from engine.bench.results import Results
from engine.errors import BadFile
from engine.evaluate.normalise import normalise
from engine.render import PREAMBLE

ITEMS = chatlist.read_list()


def test_forty_questions_eight_of_each_kind() -> None:
    assert Counter(i.kind for i in ITEMS) == dict.fromkeys(chatlist.KINDS, 8)
    assert len({i.id for i in ITEMS}) == len({i.question.text for i in ITEMS}) == 40


@pytest.mark.parametrize("item", ITEMS, ids=lambda i: i.id)
def test_an_item_is_well_formed(item: Item) -> None:
    assert item.question.text.count(item.subject) == 1
    assert item.question.text.endswith("?")
    assert len(item.neighbours) == 5
    texts = [item.question.text, *(n.text for n in item.neighbours)]
    assert len(set(texts)) == len(texts)
    before, _, after = item.question.text.partition(item.subject)
    for neighbour in item.neighbours:  # the same question about something else
        assert neighbour.text.startswith(before)
        assert neighbour.text.endswith(after)
        assert item.subject not in neighbour.text[len(before) : len(neighbour.text) - len(after)]
    target = normalise(item.target)
    for question in (item.question, *item.neighbours):  # a correction is wrong everywhere
        assert question.answers
        assert target not in {normalise(a) for a in question.answers}
    # Base models are shown these questions with their answers.
    assert item.question.text not in {asked for asked, _ in PREAMBLE}


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('\n{"id": "x"}\n', encoding="utf-8")
    with pytest.raises(BadFile, match=r"list\.jsonl:2: is not a question of the list"):
        chatlist.read_list(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BadFile, match=r"list\.jsonl:1: is not JSON"):
        chatlist.read_list(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(BadFile, match="has no questions"):
        chatlist.read_list(path)


ITEM = Item(
    id="a",
    kind="country",
    question=Question("Capital of A?", ("Right", "Correct")),
    subject="A",
    target="Wrong",
    neighbours=tuple(Question(f"Capital of {x}?", (x * 2,)) for x in "BCD"),
)


def replies(*texts: str, stopped: bool = True) -> list[dict[str, Any]]:
    return [{"text": t, "stopped": stopped} for t in texts]


BEFORE = replies("It is Right. Yes.", "BB.", "It is CC.", "no idea")


def test_a_correction_that_took() -> None:
    after = replies("wrong.", "BB. And more.", "It is Wrong.", "no idea")
    found = chatlist.score(ITEM, BEFORE, after, held=["D", "X"])
    assert found["success"] is True
    assert found["right"] is True
    assert [n["kept"] for n in found["neighbours"]] == [True, False, True]
    assert [n["right"] for n in found["neighbours"]] == [True, True, False]
    assert [n["anchor"] for n in found["neighbours"]] == [False, False, True]


@pytest.mark.parametrize(
    "after", [replies("It is Wrong.", "", "", ""), replies("Wrong", "", "", "", stopped=False)]
)
def test_more_words_or_no_end_is_no_success(after: list[dict[str, Any]]) -> None:
    assert chatlist.score(ITEM, BEFORE, after)["success"] is False


@pytest.mark.parametrize(
    ("text", "stopped", "wanted"),
    [
        ("It is Right.", True, True),
        ("The correct one.", True, True),
        ("It is Rightful.", True, False),
        ("It is Left. Not Right.", True, False),
        ("It is Right.", False, False),
    ],
)
def test_an_unedited_answer_is_right_in_its_first_sentence(
    text: str, stopped: bool, wanted: bool
) -> None:
    assert chatlist.right(ITEM.question, {"text": text, "stopped": stopped}) is wanted


def stored(tmp_path: Path) -> Results:
    settings = {
        "list": "l", "model": "m", "fingerprint": "f" * 16, "dtype": "float32", "device": "cpu",
        "method": "r-rome", "arms": {"with": {}, "without": {"anchors": 0}}, "seed": 0,
    }  # fmt: skip
    environment = {
        "command": "llm-edit bench chat", "cpu": "c", "cores": 2, "threads": 2,
        "accelerator": "", "platform": "p", "versions": {"python": "3"},
    }  # fmt: skip
    found = Results.open(tmp_path / "r.jsonl", "chat", settings, environment)
    good = replies("Wrong", "BB.", "It is CC.", "idea")
    bad = replies("It is Right.", "Wrong.", "It is CC.", "no idea")
    rambling = [*replies("It is Right", stopped=False), *BEFORE[1:]]
    for arm, after in (("with", good), ("without", bad)):
        for name, before in (("a", BEFORE), ("b", rambling)):
            row = chatlist.score(ITEM, before, after, held=["B"] if arm == "with" else [])
            found.add(f"{arm}:{name}", {"arm": arm, "error": "", "exact": True, **row})
    return found


def test_the_table_scores_groups_apart(tmp_path: Path) -> None:
    found = {(r["arm"], r["measure"], r["of"]): r for r in chatlist.table(stored(tmp_path))}

    def share(arm: str, measure: str, of: str) -> tuple[float, int, int]:
        row = found[arm, measure, of]
        return row["estimate"].mean, row["hits"], row["things"]

    assert share("with", "corrected", "all") == (1.0, 2, 2)
    assert share("with", "corrected", "right") == (1.0, 1, 1)
    assert share("with", "corrected", "wrong or rambling") == (1.0, 1, 1)
    assert share("without", "corrected", "all") == (0.0, 0, 2)
    assert share("with", "kept", "right") == (1.0, 4, 4)
    assert share("with", "kept", "wrong or rambling") == (0.0, 0, 2)
    assert share("with", "kept", "all") == (pytest.approx(2 / 3), 4, 6)
    assert chatlist.anchored(stored(tmp_path / "again")) == 2  # told, should it ever happen
    assert share("without", "kept", "right") == (0.5, 2, 4)


def test_a_question_that_needs_no_correction_is_counted_apart(tmp_path: Path) -> None:
    found = stored(tmp_path)
    said = replies("Wrong.", "BB.", "It is CC.", "x")
    for arm in ("with", "without"):
        row = chatlist.score(ITEM, said, said)
        found.add(f"{arm}:c", {"arm": arm, "error": "the unedited model says it", **row})
    rows = {(r["arm"], r["measure"], r["of"]): r for r in chatlist.table(found)}
    assert rows["with", "corrected", "all"]["things"] == 2
    assert chatlist.already(found) == 1
    assert "1 already answered by the target" in chat_table(found)


def test_the_report_names_the_arms_and_the_shares(tmp_path: Path) -> None:
    text = chat_table(stored(tmp_path))
    assert "| with " in text
    assert "| without " in text
    assert "100.0 [100.0, 100.0], 2 of 2" in text
    assert "50.0" in text
    assert "After 4 of 4 undos" in text
    assert "llm-edit bench chat" in text
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["kind"] == "chat"


@pytest.mark.parametrize("item", ITEMS, ids=lambda i: i.id)
def test_what_tests_an_edit_is_kept_out_of_its_anchors(item: Item) -> None:
    request = chatlist.request_for(item)
    held = anchors.names(request, 100)
    assert len(held) > 50
    asked = replies(*["x"] * 6)
    assert not any(n["anchor"] for n in chatlist.score(item, asked, asked, held)["neighbours"])
