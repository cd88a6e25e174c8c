"""How questions are put: chat templates, the Q/A preamble, statements."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import render
from engine.errors import BadRequest
from engine.tokens import Rendered, last_token
from tests.tiny import CHATML

from .support import TOKENIZERS, byte_level, gemma, llama, t5

SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "Be of help; the user knows Emma.<|im_end|>\n{% endif %}" + CHATML
)
TRIMS = CHATML.replace("message['content']", "message['content'] | trim")
# As of Gemma: the template writes BOS itself, and the roles have other names.
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}[{{ 'model' if m['role'] == 'assistant' else 'user' }}]"
    "\n{{ m['content'] | trim }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}[model]\n{% endif %}"
)
# As of LLaMA 2: an answer follows a blank and ends with EOS.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} "
    "[/INST]{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)


def with_template(tokenizer: Any, template: str) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    return made


CHATS = {
    "chatml": with_template(byte_level(), CHATML),
    "system": with_template(byte_level(), SYSTEM),
    "trims": with_template(byte_level(), TRIMS),
    "bos": with_template(gemma(), WITH_BOS),
    "inst": with_template(llama(), INST),
}


@pytest.fixture(params=CHATS)
def chat(request: pytest.FixtureRequest) -> Any:
    return CHATS[request.param]


def as_asked(tokenizer: Any, words: str, history: render.History = ()) -> str:
    """The template applied without any tricks."""
    turns = []
    for asked, answered in history:
        turns += [("user", asked), ("assistant", answered)]
    messages = [{"role": role, "content": text} for role, text in (*turns, ("user", words))]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


# -- chat templates -----------------------------------------------------------------------------


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CHATS)),
    words=st.text(alphabet="abcE 東京😀?'\n{}%", min_size=1).map(str.strip).filter(bool),
)
def test_a_question_reads_as_the_template_renders_it(name: str, words: str) -> None:
    tokenizer = CHATS[name]
    prompt = render.question(tokenizer, words)
    assert prompt.text == as_asked(tokenizer, words)
    start, end = prompt.question
    assert prompt.text[start:end] == words
    assert prompt.chat
    assert (prompt.glue, prompt.stop_text) == ("", "")


def test_the_ids_are_those_of_the_template(chat: Any) -> None:
    words = "Who wrote Emma?"
    prompt = render.question(chat, words)
    ids = chat.apply_chat_template(
        [{"role": "user", "content": words}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert list(prompt.ids) == ids
    bos = chat.bos_token_id
    assert bos is None or prompt.ids.count(bos) == 1


def test_earlier_turns_come_first_and_are_not_the_question(chat: Any) -> None:
    history = (("Who is Emma?", "A heroine."), ("Of whom?", "Of Jane Austen."))
    words = "Who wrote Emma?"
    prompt = render.question(chat, words, history)
    assert prompt.text == as_asked(chat, words, history)
    start, end = prompt.question
    assert prompt.text[start:end] == words
    assert start > prompt.text.index("Of Jane Austen.")
    a, b = prompt.spans[last_token(prompt, "Emma")]
    assert a < start + words.index("Emma") + len("Emma") <= b


def test_the_end_of_a_turn_is_found(chat: Any) -> None:
    end = {"gemma": "<eos>", "llama": "</s>"}
    kind = "gemma" if chat.chat_template == WITH_BOS else "llama"
    wanted = end[kind] if chat.chat_template in (WITH_BOS, INST) else "<|im_end|>"
    assert render.question(chat, "Who?").ending == (chat.convert_tokens_to_ids(wanted),)


def test_without_an_end_of_turn_it_is_the_end_of_the_sequence() -> None:
    bare = with_template(byte_level(), "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert render.question(bare, "Who?").ending == (bare.eos_token_id,)


def test_a_template_that_hides_the_question_is_refused() -> None:
    deaf = with_template(byte_level(), "hello")
    with pytest.raises(BadRequest, match="does not show the question"):
        render.question(deaf, "Who?")


# -- base models --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_a_base_model_sees_a_preamble_of_answered_questions(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    words = "Who wrote Emma?"
    prompt = render.question(tokenizer, words, (("Is it late?", "No"),))
    start, end = prompt.question
    assert prompt.text[start:end] == words
    assert prompt.text.endswith(f"Q: Is it late?\nA: No\n\nQ: {words}\nA:")
    for asked, answered in render.PREAMBLE:
        assert f"Q: {asked}\nA: {answered}\n\n" in prompt.text[:start]
    assert tokenizer.decode(list(prompt.ids), skip_special_tokens=True) == prompt.text
    assert (prompt.glue, prompt.stop_text, prompt.chat) == (" ", "\n", True)
    assert tokenizer.decode([tokenizer(":x")["input_ids"][-1], *prompt.ending]).endswith("\n")
    assert len(prompt.ending) == 1
    assert prompt.ids[-1] != tokenizer.eos_token_id
    if tokenizer.bos_token_id is not None:
        assert prompt.ids[0] == tokenizer.bos_token_id


# -- statements ---------------------------------------------------------------------------------


def adds_eos() -> Any:
    """A tokenizer that ends every text with EOS, as some base models' do."""
    from tokenizers.processors import TemplateProcessing

    made = copy.deepcopy(byte_level())
    made._tokenizer.post_processor = TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", made.eos_token_id)]
    )
    return made


@pytest.mark.parametrize("make", [*TOKENIZERS.values(), adds_eos, t5])
def test_a_statement_goes_on(make: Any) -> None:
    tokenizer = make()
    text = "The Space Needle is in"
    prompt = render.statement(tokenizer, text)
    assert prompt.ids[-1] != tokenizer.eos_token_id
    assert len(prompt.ids) == len(prompt.spans)
    assert tokenizer.decode(list(prompt.ids), skip_special_tokens=True) == text
    assert (prompt.text, prompt.question, prompt.glue) == (text, (0, len(text)), " ")
    assert (prompt.ending, prompt.chat) == ((), False)


def test_an_end_of_sequence_that_was_typed_stays() -> None:
    prompt = render.statement(byte_level(), "one<|endoftext|>")
    assert prompt.ids[-1] == byte_level().eos_token_id


def test_a_preamble_does_not_end_the_sequence_either() -> None:
    prompt = render.question(adds_eos(), "Who?")
    assert prompt.ids[-1] != adds_eos().eos_token_id


def test_an_encoder_reads_the_words_and_the_end() -> None:
    prompt = render.encoder_prompt(t5(), "Who wrote Emma?")
    assert prompt.ids[-1] == t5().eos_token_id
    assert prompt.ending == (t5().eos_token_id,)
    assert (prompt.glue, prompt.question) == ("", (0, len("Who wrote Emma?")))


@pytest.mark.parametrize(
    ("put", "words", "message"),
    [
        (render.statement, "", "the prompt is empty"),
        (render.question, " \n", "the question is empty"),
        (render.encoder_prompt, "", "the question is empty"),
    ],
)
def test_nothing_is_refused(put: Any, words: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        put(byte_level(), words)


def test_has_chat_template() -> None:
    assert not render.has_chat_template(byte_level())
    assert render.has_chat_template(with_template(byte_level(), CHATML))


def test_a_rendered_prompt_is_immutable() -> None:
    prompt: Rendered = render.statement(byte_level(), "x")
    with pytest.raises(AttributeError):
        prompt.text = "y"  # type: ignore[misc]


@pytest.mark.parametrize("put", [render.statement, render.question])
def test_a_document_begins_with_one_token_that_says_so(put: Any) -> None:
    """BOS where the tokenizer adds it, else the separator of documents, where there is one."""
    for tokenizer, first in ((byte_level(), "<|endoftext|>"), (llama(), "<s>"), (gemma(), "<bos>")):
        prompt = put(tokenizer, "Who wrote Emma?")
        begin = tokenizer.convert_tokens_to_ids(first)
        assert prompt.ids[0] == begin
        assert prompt.ids.count(begin) == 1
        assert prompt.spans[0] == (0, 0)
        assert len(prompt.ids) == len(prompt.spans)
    plain = copy.deepcopy(llama())
    plain.add_bos_token = False
    prompt = put(plain, "Who wrote Emma?")
    assert plain.decode([prompt.ids[0]]).strip() not in ("<s>", "<unk>")
