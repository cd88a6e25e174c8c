"""What an editor is asked to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadFile, BadRequest, SubjectAmbiguous, SubjectNotFound, unreadable


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt and, where it is known, the answer that should follow."""

    prompt: str
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One fact: after the edit, `prompt` is answered by `target_new`.

    prompt        the question (chat) or the beginning of the statement
    subject       the span of the prompt that the fact is about; None for methods without one
    target_new    the answer to edit in, without leading space
    target_old    the present or true answer, where it is known
    rephrases     the same question in other words: should give target_new too
    neighbours    prompts about other subjects: must not change
    portability   consequences of the fact
    chat          asked as a chat turn (template or Q/A preamble), not as a statement to continue
    history       the (question, answer) turns before it: one more context the edit must hold in
    """

    prompt: str
    target_new: str
    subject: str | None = None
    target_old: str | None = None
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    portability: tuple[Probe, ...] = ()
    chat: bool = False
    history: tuple[tuple[str, str], ...] = ()

    def check(self) -> Request:
        """Itself, with blanks stripped.

        Raises BadRequest (empty prompt or target, target equal to the old answer),
        SubjectNotFound, SubjectAmbiguous.
        """
        clean = dataclasses.replace(
            self,
            prompt=self.prompt.strip(),
            target_new=self.target_new.strip(),
            subject=(self.subject or "").strip() or None,
            target_old=(self.target_old or "").strip() or None,
        )
        if not clean.prompt:
            raise BadRequest("the prompt is empty.")
        if not clean.target_new:
            raise BadRequest("the target is empty.", "Type the answer that the model should give.")
        if clean.target_old is not None and clean.target_old == clean.target_new:
            raise BadRequest(f"the target equals the present answer ({clean.target_new!r}).")
        if clean.subject is not None:
            count = occurrences(clean.prompt, clean.subject)
            if count == 0:
                raise SubjectNotFound(
                    f"the subject {clean.subject!r} is not in the prompt {clean.prompt!r}.",
                    "Copy it from the prompt, letter for letter.",
                )
            if count > 1:
                raise SubjectAmbiguous(
                    f"the subject {clean.subject!r} occurs {count} times in {clean.prompt!r}.",
                    "Choose a longer span that occurs once, or rephrase.",
                )
        return clean

    def key(self) -> tuple[bool, str]:
        """What two requests have in common that ask for an answer to the same thing.

        The subject is a span of the question, and chosen by the method's need: the same question
        with another span of it named is still the same question.
        """
        words = " ".join(self.prompt.casefold().split())
        return self.chat, words.rstrip(" ?!.")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Request:
        """Raises BadRequest for unknown, missing or mistyped fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise BadRequest(
                f"unknown field {unknown[0]!r}.", f"Known: {', '.join(sorted(known))}."
            )
        for name in ("prompt", "target_new"):
            if name not in data:
                raise BadRequest(f"missing field {name!r}.")
        values = dict(data)
        for name in ("prompt", "target_new", "subject", "target_old"):
            absent = name in ("subject", "target_old") and values.get(name) is None
            if not (absent or isinstance(values[name], str)):
                raise BadRequest(f"{name!r} must be text, not {values[name]!r}.")
        for name in ("rephrases", "neighbours"):
            items = values.get(name) or ()
            if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
                raise BadRequest(f"{name!r} must be a list of texts.")
            values[name] = tuple(items)
        try:
            values["portability"] = tuple(Probe(**p) for p in values.get("portability") or ())
        except TypeError:
            raise BadRequest("'portability' must be a list of {prompt, answer}.") from None
        if not isinstance(values.get("chat", False), bool):
            raise BadRequest("'chat' must be true or false.")
        try:
            values["history"] = tuple((str(q), str(a)) for q, a in values.get("history") or ())
        except (TypeError, ValueError):
            raise BadRequest("'history' must be a list of [question, answer].") from None
        return cls(**values)


def is_question(prompt: str) -> bool:
    """Whether a prompt is asked, where nothing says so, and not continued as it stands."""
    return prompt.rstrip().endswith("?")


def occurrences(text: str, words: str) -> int:
    """How often `words` stand in `text`, overlapping ones too ("ana" twice in "banana")."""
    return sum(text.startswith(words, i) for i in range(len(text)))


_RARE = ("portability", "history")  # left out of a line where there are none


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of a facts file: a request, and how it is edited where the line says so.

    method   name of the editing method; None: as the reader has it
    hparams  hyper-parameters of that method; those that are not named are as the reader has them
    """

    request: Request
    method: str | None = None
    hparams: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. An old answer that equals the target says nothing: null."""
        values = self.request.to_json()
        if values["target_old"] == values["target_new"]:
            values["target_old"] = None
        values = {k: v for k, v in values.items() if v or k not in _RARE}
        return values | {"method": self.method, "hparams": dict(self.hparams)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fact:
        """A checked fact; `method` and `hparams` may be absent, and `chat`: a prompt that ends
        with a question mark is asked, then.

        Raises BadRequest and its kin, also for unknown, missing or mistyped fields.
        """
        values = dict(data)
        method = values.pop("method", None)
        hparams = values.pop("hparams", None) or {}
        if "chat" not in values and isinstance(values.get("prompt"), str):
            values["chat"] = is_question(values["prompt"])
        if not isinstance(method, (str, type(None))):
            raise BadRequest(f"'method' must be text, not {method!r}.")
        if not isinstance(hparams, dict):
            raise BadRequest(f"'hparams' must be an object, not {hparams!r}.")
        return cls(request=Request.from_json(values).check(), method=method, hparams=hparams)


def read_facts(path: Path) -> Iterator[Fact]:
    """The facts of a JSON Lines file, one a line; blank lines are skipped.

    Raises BadFile naming the file and the line.
    """
    try:
        # Not splitlines: JSON texts may hold U+2028 and other line separators of Unicode.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, None, unreadable(error)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadFile(path, number, f"is not JSON: {error.msg}.") from error
        if not isinstance(data, dict):
            raise BadFile(path, number, "is not a JSON object.")
        try:
            yield Fact.from_json(data)
        except BadRequest as error:
            raise BadFile(path, number, str(error)) from error
