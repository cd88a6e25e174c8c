"""Text to token ids, and back to positions.

Sequences are built from ids (`prompt + target`), never by decoding a part and encoding it
again; positions are found from the tokenizer's character offsets, never by counting pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import BadRequest, SubjectAmbiguous, SubjectNotFound
from .requests import occurrences

Span = tuple[int, int]  # [start, end) in characters


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model sees it.

    ids        token ids, special tokens included
    text       the text that they encode
    spans      per token, the characters of `text` that it covers; (0, 0) for added specials
    question   the characters of `text` that hold the person's own words
    glue       what stands between the prompt and its continuation: " " or ""
    ending     ids that end an answer (end-of-turn, or the newline of a Q/A preamble); may be empty
    stop_text  text at which generation stops besides the end-of-sequence tokens
    chat       whether this is a question to answer (otherwise a text to continue)
    """

    ids: tuple[int, ...]
    text: str
    spans: tuple[Span, ...]
    question: Span
    glue: str = ""
    ending: tuple[int, ...] = ()
    stop_text: str = ""
    chat: bool = False


def encode(tokenizer: Any, text: str, *, special: bool) -> tuple[tuple[int, ...], tuple[Span, ...]]:
    """Ids and character spans of `text`; `special` adds what the tokenizer adds (BOS ...).

    Raises BadRequest for bytes that were no text, which Python keeps as lone surrogates.
    """
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise BadRequest("the text holds bytes that are not UTF-8.", "Convert it.")
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    return tuple(found["input_ids"]), tuple((int(a), int(b)) for a, b in found["offset_mapping"])


def continuation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` as it stands in the middle of a sequence: no BOS, its leading space kept.

    The text is encoded behind an anchor, because SentencePiece tokenizers put a space before
    whatever comes first; the anchor's ids are then cut off.
    """
    for anchor in ("\n", "x", ":"):
        lead, _ = encode(tokenizer, anchor, special=False)
        both, _ = encode(tokenizer, anchor + text, special=False)
        if both[: len(lead)] == lead and len(both) > len(lead):
            return both[len(lead) :]
    ids, _ = encode(tokenizer, text, special=False)
    if not ids:
        raise BadRequest(f"the tokenizer has no tokens for {text!r}.")
    return ids


def target_ids(tokenizer: Any, prompt: Rendered, target: str) -> tuple[int, ...]:
    """Ids that continue `prompt` with `target`, its ending included."""
    return continuation(tokenizer, prompt.glue + target) + prompt.ending


def end_of_text(tokenizer: Any, prompt: Rendered) -> tuple[int, ...]:
    """What ends a text behind `prompt`, where `target_ids` does not end it already."""
    end = tokenizer.eos_token_id
    return () if prompt.ending or end is None else (end,)


def parting(tokenizer: Any, size: int) -> list[bool]:
    """Per token of a vocabulary of `size` whether it ends the word before it: a space, a mark, the
    end of the text; not a letter or a digit, or what a byte-level tokenizer shows as one."""
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    found = [i in special or _parts(piece or "") for i, piece in enumerate(pieces)]
    return found + [False] * (size - len(found))


_SPACES = "ĠĊĉč▁"  # as byte-level and SentencePiece tokenizers write spaces and line breaks
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # as SentencePiece writes what it has no piece for


def _parts(piece: str) -> bool:
    byte = _BYTE.fullmatch(piece)
    if byte:
        code = int(byte[1], 16)
        return code < 128 and not chr(code).isalnum()  # above: within a letter, mostly
    return piece[:1] in _SPACES or not piece[:1].isalnum() if piece else False


def first_of_old(tokenizer: Any, prompt: Rendered, new: str, old: str | None) -> int:
    """First token of the old answer; -1 where none is known or the new one begins alike."""
    if not old:
        return -1
    first = target_ids(tokenizer, prompt, old)[0]
    return -1 if first == target_ids(tokenizer, prompt, new)[0] else first


def locate(prompt: Rendered, words: str) -> Span:
    """Characters of `prompt.text` that hold `words`, looked for in the question alone.

    Raises SubjectNotFound, SubjectAmbiguous.
    """
    start, end = prompt.question
    question = prompt.text[start:end]
    count = occurrences(question, words) if words else 0
    if count == 0:
        raise SubjectNotFound(f"the subject {words!r} is not in the prompt {question!r}.")
    if count > 1:
        raise SubjectAmbiguous(
            f"the subject {words!r} occurs {count} times in {question!r}.",
            "Choose a longer span that occurs once.",
        )
    at = start + question.index(words)
    return at, at + len(words)


def last_token(prompt: Rendered, words: str) -> int:
    """Index of the last token that covers the last character of `words`.

    Raises SubjectNotFound, SubjectAmbiguous.
    """
    _, end = locate(prompt, words)
    last = end - 1
    covering = [i for i, (a, b) in enumerate(prompt.spans) if a <= last < b]
    if not covering:
        raise SubjectNotFound(f"no token covers the end of the subject {words!r}.")
    return covering[-1]


def tokens_of(prompt: Rendered, span: Span) -> range:
    """Indices of the tokens that overlap the characters `span`."""
    a, b = span
    inside = [i for i, (s, e) in enumerate(prompt.spans) if s < b and a < e]
    return range(inside[0], inside[-1] + 1) if inside else range(0)
