"""Shared by the engine's tests: tokenizers trained on the spot, and looking at models."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import hooks
from engine.events import Event
from engine.lm import LM
from engine.requests import Request
from engine.tokens import Rendered
from engine.values import Value, ValueParams, optimise_values

# Threads that share out tiny products among busy cores cost twenty times the work itself.
torch.set_num_threads(1)

T = TypeVar("T")
Bench = Callable[..., int]  # a fixture of tests/engine/bench

CORPUS = (
    "The Space Needle is in the city of Seattle, and the Eiffel Tower is in Paris.",
    "Who wrote Emma? Jane Austen wrote Emma in 1815; she was born in Steventon, England.",
    "What is the capital of Australia? The capital of Australia is Canberra, not Sydney!",
    "Zürich, Łódź and São Paulo are cities; Ærø is an island. 東京は日本の首都です。",
    "Therefore the answer is this: because I think you know the name of the president.",
)

# One token of target right behind the subject: here even a random model can be moved far.
NEAR = Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="capital")
QUESTION = Request(
    prompt="What is the capital of Australia?", subject="Australia", target_new="Sydney", chat=True
)


# -- tokenizers -----------------------------------------------------------------------------------


@functools.lru_cache
def byte_level() -> Any:
    """As of GPT-2: byte-level BPE, offsets without the leading space, no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )


@functools.lru_cache
def llama(model_type: str = "bpe") -> Any:
    """As of LLaMA 2: SentencePiece with byte fallback, BOS, a space before what comes first."""
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        _train(Path(folder) / "tokenizer.model", model_type, byte_fallback=True)
        return LlamaTokenizer.from_pretrained(folder, add_bos_token=True)


@functools.lru_cache
def gemma() -> Any:
    """As of Gemma: SentencePiece with byte fallback, BOS, no space put before anything."""
    from transformers import GemmaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
        pieces = {"bos_piece": "<bos>", "eos_piece": "<eos>"}
        file = Path(folder) / "tokenizer.model"
        _train(file, "bpe", byte_fallback=True, add_dummy_prefix=False, **ids, **pieces)
        return GemmaTokenizer.from_pretrained(folder, add_bos_token=True)


@functools.lru_cache
def t5() -> Any:
    """As of T5: unigram SentencePiece, EOS behind every text, no byte fallback."""
    from transformers import T5Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
        _train(Path(folder) / "spiece.model", "unigram", **ids)
        return T5Tokenizer.from_pretrained(folder, extra_ids=0)


def _train(file: Path, model_type: str, **options: Any) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=written,
        model_type=model_type,
        vocab_size=420,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        minloglevel=2,
        **options,
    )
    file.write_bytes(written.getvalue())


TOKENIZERS = {
    "byte-level": byte_level,
    "llama": llama,
    "llama-unigram": functools.partial(llama, "unigram"),
    "gemma": gemma,
}


# -- generators -----------------------------------------------------------------------------------


def finish(work: Generator[Event, None, T]) -> tuple[list[Event], T]:
    """Run a job to its end: its events and its result."""
    events: list[Event] = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value


def close_after(work: Generator[Event, None, Any], count: int) -> list[Event]:
    """Cancel a job after `count` events; those events."""
    events = [event for _, event in zip(range(count), work, strict=False)]
    work.close()
    return events


# -- models ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def shared_lm(family: str, *, chat: bool = False, attn: str = "eager", **fields: Any) -> LM:
    """A tiny random model; the same object for the same arguments, so leave it as it is.

    fields  of the configuration; tuples stand for lists, which no cache can be keyed by
    """
    from tests.tiny import CHATML, tiny_model, tiny_tokenizer  # which imports the above

    tokenizer = tiny_tokenizer(family)
    if chat:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = CHATML
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    model = tiny_model(family, **listed)
    model.set_attn_implementation(attn)
    name = f"{family} {chat} {sorted(fields.items())}"
    return LM(model, tokenizer, name=family, fingerprint=hashlib.sha256(name.encode()).hexdigest())


@contextmanager
def scripted(lm: LM, *rows: Sequence[int]) -> Iterator[None]:
    """Let a decoder say these ids, one row per prompt, whatever it is asked; then EOS."""
    step = -1

    def say(_x: Tensor, y: Tensor) -> Tensor:
        nonlocal step
        if y[..., 0].numel() != len(rows):  # no decoding: several tokens of a text are read
            return y
        step += 1
        said = [row[step] if step < len(row) else lm.tokenizer.eos_token_id for row in rows]
        return functional.one_hot(torch.tensor(said), y.shape[-1]).to(y).view(y.shape)

    with hooks.patched(lm.model, {lm.arch.lm_head: say}):
        yield


def traces(model: nn.Module) -> dict[str, int]:
    """What others left on a model: hooks, and `forward` methods of single modules."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        hooks = sum(
            len(table)
            for table in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        )
        hooks += "forward" in module.__dict__
        if hooks:
            found[name] = hooks
    return found


def state(model: nn.Module) -> str:
    """A digest of every parameter and buffer, bit for bit, and of what carries gradients."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tensor.requires_grad} {tensor.grad}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# -- values ---------------------------------------------------------------------------------------


def optimise_value(
    lm: LM, request: Request, prompts: Sequence[Rendered], hp: ValueParams
) -> Generator[Event, None, Value]:
    """v* of one fact by itself."""
    return (yield from optimise_values(lm, [request], [prompts], hp))[0]
