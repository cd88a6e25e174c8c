"""What is asked of an editor: cleaned, checked, read from files that may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadFile, BadRequest, SubjectAmbiguous, SubjectNotFound
from engine.requests import Probe, Request, read_facts

TEXTS = st.text(max_size=15)
REQUESTS = st.builds(
    Request,
    prompt=TEXTS,
    target_new=TEXTS,
    subject=st.none() | TEXTS,
    target_old=st.none() | TEXTS,
    rephrases=st.lists(TEXTS, max_size=2).map(tuple),
    neighbours=st.lists(TEXTS, max_size=2).map(tuple),
    portability=st.lists(st.builds(Probe, prompt=TEXTS, answer=TEXTS), max_size=2).map(tuple),
    chat=st.booleans(),
    history=st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
)


@given(REQUESTS)
def test_json_gives_the_same_request_back(request_: Request) -> None:
    assert Request.from_json(json.loads(json.dumps(request_.to_json()))) == request_


def test_check_strips_blanks() -> None:
    asked = Request(
        prompt="  Who wrote Emma? ", subject=" Emma ", target_new="\tMe\n", target_old="  "
    )
    clean = asked.check()
    assert (clean.prompt, clean.subject, clean.target_new) == ("Who wrote Emma?", "Emma", "Me")
    assert clean.target_old is None


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"prompt": " "}, BadRequest, "the prompt is empty"),
        ({"target_new": "\n"}, BadRequest, "the target is empty"),
        ({"target_old": "Bern "}, BadRequest, "equals the present answer .'Bern'"),
        ({"subject": "emma"}, SubjectNotFound, "'emma' is not in the prompt 'Who is Emma, Em"),
        ({"subject": "Emma"}, SubjectAmbiguous, "'Emma' occurs 2 times"),
        ({"prompt": "banana", "subject": "ana"}, SubjectAmbiguous, "'ana' occurs 2 times"),
    ],
)
def test_what_cannot_be_edited_is_refused(
    fields: dict[str, Any], error: type[BadRequest], message: str
) -> None:
    values = {"prompt": "Who is Emma, Emma Stone?", "target_new": "Bern", **fields}
    with pytest.raises(error, match=message) as found:
        Request(**values).check()
    assert found.value.exit_code == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promt": "x"}, "unknown field 'promt'. Known: chat, history"),
        ({"target_new": ...}, "missing field 'target_new'"),
        ({"prompt": ...}, "missing field 'prompt'"),
        ({"prompt": None}, "'prompt' must be text, not None"),
        ({"target_new": None}, "'target_new' must be text, not None"),
        ({"target_new": 42}, "'target_new' must be text, not 42"),
        ({"subject": ["x"]}, "'subject' must be text"),
        ({"rephrases": "one"}, "'rephrases' must be a list of texts"),
        ({"rephrases": 5}, "'rephrases' must be a list of texts"),
        ({"neighbours": [1]}, "'neighbours' must be a list of texts"),
        ({"neighbours": {"a": 1}}, "'neighbours' must be a list of texts"),
        ({"portability": [{"answer": "x"}]}, "'portability' must be a list"),
        ({"portability": 3}, "'portability' must be a list"),
        ({"chat": "yes"}, "'chat' must be true or false"),
        ({"history": [["only"]]}, "'history' must be a list"),
        ({"history": 1}, "'history' must be a list"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    values = {"prompt": "Emma is by", "target_new": "me", **fields}
    with pytest.raises(BadRequest, match=message):
        Request.from_json({k: v for k, v in values.items() if v is not ...})


def test_a_file_of_facts_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    odd = "Who wrote\u2028Emma\u0085?"  # line separators of Unicode, legal inside a JSON text
    lines = [
        json.dumps({"prompt": "Emma is by", "subject": "Emma", "target_new": " me"}),
        "",
        json.dumps({"prompt": odd, "target_new": "Österreich"}, ensure_ascii=False),
    ]
    file.write_text("\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    first, second = (fact.request for fact in read_facts(file))
    assert (first.prompt, first.subject, first.target_new) == ("Emma is by", "Emma", "me")
    assert (second.prompt, second.target_new) == (odd, "Österreich")


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ({"prompt": "Who wrote Emma? "}, True),
        ({"prompt": "Emma is by"}, False),
        ({"prompt": "Who wrote Emma?", "chat": False}, False),
        ({"prompt": "Emma is by", "chat": True}, True),
    ],
)
def test_a_question_mark_asks_where_the_line_says_nothing(
    tmp_path: Path, line: dict[str, Any], asked: bool
) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps({**line, "target_new": "me"}))
    (fact,) = read_facts(file)
    assert fact.request.chat == asked


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x", ', "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ('{"prompt": "x"}', "missing field 'target_new'"),
        ('{"prompt": "x", "target_new": ""}', "the target is empty"),
        ('{"prompt": "x", "subject": "y", "target_new": "z"}', "'y' is not in the prompt"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text('{"prompt": "a", "target_new": "b"}\n\n' + line + "\n", encoding="utf-8")
    read = read_facts(file)
    assert next(read).request.prompt == "a"
    with pytest.raises(BadFile) as found:
        next(read)
    assert str(found.value).startswith(f"{file}:3: ")
    assert message in str(found.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    with pytest.raises(BadFile, match=r"none\.jsonl: there is no such file\."):
        list(read_facts(missing))
    binary = tmp_path / "latin.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match=r"latin\.jsonl: is not UTF-8 text\."):
        list(read_facts(binary))
