"""Timeline, branches and comparisons line by line, on a tiny model."""

from __future__ import annotations

import io
import re

from tiny_chat import Make, answers, done

from tests.cli.small import QUESTION
from tui.assistant import Assistant
from tui.plain import PlainFront


class Lines:
    """What a line gives: `out` and `err` of that line alone."""

    def __init__(self, assistant: Assistant) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.front = PlainFront(assistant, out=self.out, err=self.err)

    def __call__(self, text: str) -> list[str]:
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        self.front.line(text)
        return self.out.getvalue().splitlines()


def test_history_branch_and_back(make: Make) -> None:
    assistant = make()
    line = Lines(assistant)
    line("/history")
    assert "Nothing was said in this session yet." in line.err.getvalue()
    line(QUESTION)
    (plain,) = answers(assistant)
    line("/fix Australia => Paris")
    told = line("/history")
    assert all(re.match(r"[0-9a-z]{6}  ", each) for each in told)
    who = [each[8:].strip().split(":")[0] for each in told]
    assert who == ["you", "model", "◆ #1 r-rome", "model"]
    assert told[1].startswith(f"{told[1][:6]}    model:"), "what left the way is indented"
    assert told[1].endswith("left]")
    assert told[-1].endswith("◂ here]")
    (said,) = line(f"/branch {told[1][:6]}")
    assert said.startswith("On a branch from here on: 1 turn, no edits in force.")
    assert answers(assistant) == [plain]
    (said,) = line(f"/branch {told[3][:6]}")
    assert "1 edit in force" in said
    line("/branch 7")
    assert "there is no answer 7" in line.err.getvalue()
    line("/open nothing")
    assert "nothing" in line.err.getvalue()
    assert line.front.failed


def test_compare_says_both_answers_and_the_next_tokens(make: Make) -> None:
    assistant = make()
    line = Lines(assistant)
    line(QUESTION)
    line("/fix Australia => Paris")
    told = line("/compare")
    assert told[:2] == ["A: the unedited model", "B: now (1 edit)"]
    assert any(each.startswith(f"edited: {QUESTION}") for each in told)
    assert any(each.startswith("neighbour: ") for each in told)
    tokens = [each for each in told if each.startswith("B next: ")]
    assert [each.count(" %") for each in tokens] == [10], "of what was edited"
    told = line("/compare #1 now Who was Emma?")
    assert told[0].startswith("A: after edit #1: Australia → Paris")
    assert "A and B are the same state." in told
    assert any(each == "typed: Who was Emma?  [= same]" for each in told)
    line("/compare #9")
    assert "#9" in line.err.getvalue()


def test_open_alone_opens_this_session_as_another_has_left_it(make: Make) -> None:
    assistant = make()
    line = Lines(assistant)
    line("/open")
    assert "nothing was said in this session yet" in line.err.getvalue()
    line(QUESTION)
    line("/fix Australia => Paris")
    done(make(session=assistant.snapshot().session_id).undo())
    line("/fix Australia => Rome")
    assert "Open the session again (/open)" in line.err.getvalue()
    (said,) = line("/open")
    assert "no edits in force" in said
    assert assistant.snapshot().active == ()
    line("/fix Australia => Rome")
    assert [edit.target for edit in assistant.snapshot().active] == ["Rome"]
    line("/open")
    assert "is open already" in line.err.getvalue()
