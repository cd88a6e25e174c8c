"""A session to read: the conversation where it stands, and its corrections, as Markdown.

What people and models said stands in code blocks, so that it is shown letter by letter: nothing
in it is a heading, a link or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .fold import superseded
from .recording import Recording
from .rows import EditRow

_WHO = {"user": "Question", "assistant": "Answer", "system": "System"}


def to_markdown(found: Recording) -> str:
    """Ends with a line break."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Recording) -> Iterator[str]:
    session = found.session
    yield f"# {_inline(session.title or session.id)}"
    yield ""
    yield f"- session: `{session.id}`"
    yield f"- model: {_inline(session.model.name)} ({_inline(session.model.dtype)}), "\
        f"fingerprint `{_inline(session.model.fingerprint)}`"  # fmt: skip
    yield f"- method: {_inline(session.method)}"
    yield f"- begun {_when(session.created)}, last used {_when(session.updated)}"
    yield from _conversation(found)
    yield from _corrections(found)


def _conversation(found: Recording) -> Iterator[str]:
    numbers = {edit.id: number for number, edit in enumerate(found.edits, start=1)}
    said = {message.node: message for message in found.conversation(found.session.tip)}
    yield from ("", "## Conversation")
    if not said:
        yield from ("", "Nothing was said.")
    after = 0  # the edit that was made since the last question
    for node in found.path(found.session.tip):
        after = numbers.get(node.target or "", 0) if node.kind == "edit" else after
        message = said.get(node.id)
        if message is None:
            continue
        notes = ["in a fresh conversation"] if message.fresh and message.role == "user" else []
        notes += [f"after edit {after}"] if after and message.role == "assistant" else []
        notes += [f"stopped: {_inline(message.stopped_by)}"] if message.stopped_by else []
        head = _WHO[message.role] + (f" ({', '.join(notes)})" if notes else "")
        yield from ("", f"**{head}**", "", *_block(message.text))
        after = after if message.role == "assistant" else 0


def _corrections(found: Recording) -> Iterator[str]:
    if not found.edits:
        return
    tip = found.session.tip
    active = found.states[tip].active if tip is not None else ()
    numbers = {edit.id: number for number, edit in enumerate(found.edits, start=1)}
    replaced = superseded(active, {edit.id: edit.supersedes for edit in found.edits})
    forces = dict.fromkeys(active, "in force")
    forces |= {old: f"superseded by {numbers[new]}" for old, new in replaced.items()}
    yield from ("", "## Corrections")
    for number, edit in enumerate(found.edits, start=1):
        force = forces.get(edit.id, "not in force")
        yield from ("", f"### {number}. {_inline(edit.method)}, {_state(edit, force)}", "")
        yield from _block("\n".join(_facts(edit)))
        if edit.state == "done":
            before, after = (str(a.get("answer", "")) for a in (edit.before, edit.after))
            yield from ("", "Before:", "", *_block(before), "", "After:", "", *_block(after))
        if words := edit.verdict or edit.error:
            yield from ("", *_block(words))
        for metric in edit.metrics:
            values = f"{metric.before:.4g} → {metric.after:.4g} (n = {metric.n})"
            yield from ("", f"- {_inline(metric.name)}: {values}")


def _state(edit: EditRow, force: str) -> str:
    if edit.state != "done":
        return edit.state
    took = "took" if edit.success else "did not take"
    return f"{took}, {force}"


def _facts(edit: EditRow) -> Iterator[str]:
    names = ("prompt", "subject", "target_old", "target_new")
    for request in edit.request.get("requests") or [edit.request]:
        yield from (f"{name}: {request[name]}" for name in names if request.get(name))


def _block(text: str) -> list[str]:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text.split("\n"), fence]


def _inline(text: str) -> str:
    """One line without anything that Markdown reads."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", " ".join(text.split()))


def _when(time: str) -> str:
    return _inline(time[:16].replace("T", " ")).replace("\\-", "-") + " UTC"
