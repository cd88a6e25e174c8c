"""How a question or a statement is put to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import BadRequest
from .tokens import Rendered, Span, encode

History = Sequence[tuple[str, str]]  # (question, answer) of earlier turns

# Base models answer in the form they are shown; short, so that it is cheap at every question.
PREAMBLE = (
    ("What is the largest planet in the solar system?", "Jupiter"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
)
SEPARATOR = "<|endoftext|>"
_MARK = "\u2063question\u2063"  # invisible separators: cannot collide with what people type


def has_chat_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def statement(tokenizer: Any, text: str) -> Rendered:
    """Text to be continued as it stands."""
    if not text:
        raise BadRequest("the prompt is empty.")
    ids, spans = _document(tokenizer, text)
    return Rendered(ids, text, spans, (0, len(text)), glue="" if text[-1].isspace() else " ")


def question(tokenizer: Any, words: str, history: History = ()) -> Rendered:
    """A question in the model's own chat template; a Q/A preamble where it has none."""
    if not words.strip():
        raise BadRequest("the question is empty.")
    if has_chat_template(tokenizer):
        return _templated(tokenizer, words, history)
    return _preamble(tokenizer, words, history)


def encoder_prompt(tokenizer: Any, words: str) -> Rendered:
    """The input of an encoder-decoder model: the words and the end-of-sequence token."""
    if not words.strip():
        raise BadRequest("the question is empty.")
    ids, spans = encode(tokenizer, words, special=True)
    ending = (tokenizer.eos_token_id,) if tokenizer.eos_token_id is not None else ()
    return Rendered(ids, words, spans, (0, len(words)), ending=ending, chat=True)


def _templated(tokenizer: Any, words: str, history: History) -> Rendered:
    turns = [
        {"role": role, "content": content}
        for asked, answered in history
        for role, content in (("user", asked), ("assistant", answered))
    ]
    # Templates may trim or escape what is said; a mark shows where the last question lands.
    marked = tokenizer.apply_chat_template(
        [*turns, {"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
    )
    before, found, after = marked.rpartition(_MARK)
    if not found:
        raise BadRequest("the chat template does not show the question.")
    text = before + words + after
    ids, spans = encode(tokenizer, text, special=False)
    return Rendered(
        ids,
        text,
        spans,
        (len(before), len(before) + len(words)),
        ending=_end_of_turn(tokenizer),
        chat=True,
    )


def _end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """The special token with which the template ends an answer (else end-of-sequence)."""
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": _MARK}], tokenize=False
    )
    ids, _ = encode(tokenizer, shown.rpartition(_MARK)[2], special=False)
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    for token in ids:
        if token in special:
            return (token,)
    return (tokenizer.eos_token_id,) if tokenizer.eos_token_id is not None else ()


def _preamble(tokenizer: Any, words: str, history: History) -> Rendered:
    shown = "".join(f"Q: {asked}\nA: {answered}\n\n" for asked, answered in (*PREAMBLE, *history))
    before = f"{shown}Q: "
    text = f"{before}{words}\nA:"
    ids, spans = _document(tokenizer, text)
    newline, _ = encode(tokenizer, "A\n", special=False)
    ending = newline[-1:]  # the newline as it follows a word
    place = (len(before), len(before) + len(words))
    return Rendered(ids, text, spans, place, glue=" ", ending=ending, stop_text="\n", chat=True)


def _document(tokenizer: Any, text: str) -> tuple[tuple[int, ...], tuple[Span, ...]]:
    """Ids and spans of a text that begins a document and goes on after its end.

    Most tokenizers add BOS. Those that do not (GPT-2, Qwen, SmolLM ...) were trained on
    documents parted by <|endoftext|>, so that stands first: otherwise the text's first token
    becomes the attention sink, with a key that says nothing about it, and a subject there
    cannot be told from any other.
    """
    ids, spans = encode(tokenizer, text, special=True)
    if ids and ids[-1] == tokenizer.eos_token_id and spans[-1][0] == spans[-1][1]:
        ids, spans = ids[:-1], spans[:-1]
    if spans and spans[0][0] == spans[0][1]:  # BOS was added
        return ids, spans
    # Not through get_vocab, which takes a tenth of a second with Gemma's 262,144 tokens.
    separator = tokenizer.convert_tokens_to_ids(SEPARATOR)
    if separator is None or tokenizer.convert_ids_to_tokens(separator) != SEPARATOR:
        return ids, spans
    return (separator, *ids), ((0, 0), *spans)
