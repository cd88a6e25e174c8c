"""The facts of an edited model, asked before and after they were merged into its weights."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..arch import row_for
from ..correct import MAX_TOKENS, said
from ..events import Event, Loading
from ..generate import until
from ..library import counted_bars, in_words
from ..lm import LM
from ..patches import Patch
from ..progress import Progress, in_thread
from ..requests import Request
from . import named
from .card import Base


@dataclass(frozen=True)
class Answer:
    """A greedy answer, and whether it ended by itself."""

    text: str
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One fact, asked of the edited model (live) and of the saved checkpoint (merged)."""

    edit: str
    request: Request
    live: Answer
    merged: Answer

    @property
    def name(self) -> str:
        return named(self.request)

    @property
    def same(self) -> bool:
        """Both say the same, to the letter."""
        return self.live == self.merged

    @property
    def said(self) -> tuple[bool, bool]:
        """Whether the target is said: live, merged."""
        return (
            said(self.request, self.live.text, self.live.ended),
            said(self.request, self.merged.text, self.merged.ended),
        )

    @property
    def lost(self) -> bool:
        """The edited model says the target, the checkpoint does not."""
        live, merged = self.said
        return live and not merged

    def to_json(self) -> dict[str, Any]:
        live, merged = self.said
        return {
            "edit": self.edit,
            "fact": self.name,
            "prompt": self.request.prompt,
            "target": self.request.target_new,
            "live": {"answer": self.live.text, "said": live},
            "merged": {"answer": self.merged.text, "said": merged},
            "same": self.same,
            "lost": self.lost,
        }


def ask_edited(
    lm: LM, patches: Sequence[Patch], requests: Sequence[Request]
) -> Generator[Event, None, list[Answer]]:
    """The answers of a model with these patches beside its weights."""
    answers = []
    with lm.active(patches):
        for done, request in enumerate(requests):
            yield Loading(stage="live", done=done, total=len(requests), unit="facts")
            reply = lm.reply(lm.prompt(request.prompt, chat=request.chat), MAX_TOKENS)
            answers.append(Answer(reply.text, reply.reason == "stop"))
    return answers


def ask_saved(
    folder: Path,
    requests: Sequence[Request],
    base: Base,
    *,
    device: torch.device,
    attention: str,
) -> Generator[Event, None, list[Answer]]:
    """The answers of a saved checkpoint, loaded and decoded by transformers alone.

    attention   implementation: in some families they differ by more than an edit does
    """
    progress = Progress("reload", unit="tensors")
    with in_words(folder), counted_bars(progress):
        model, tokenizer = yield from in_thread(
            lambda: _loaded(folder, base, device, attention), progress
        )
    # Only for the words around a question and the tokens that end an answer.
    lm = LM(model, tokenizer, name=base.name)
    answers = []
    for done, request in enumerate(requests):
        yield Loading(stage="merged", done=done, total=len(requests), unit="facts")
        answers.append(_answer(lm, request))
    return answers


def _loaded(folder: Path, base: Base, device: torch.device, attention: str) -> tuple[Any, Any]:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        GenerationConfig,
    )

    auto: Any = AutoModelForSeq2SeqLM if row_for(base.model_type).encoder else AutoModelForCausalLM
    model = auto.from_pretrained(folder, local_files_only=True, attn_implementation=attention)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Plain greedy decoding, whatever the model ships (sampling, penalties); its ends stay.
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=ends,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    return model.eval().requires_grad_(False).to(device), tokenizer


@torch.no_grad()
def _answer(lm: LM, request: Request) -> Answer:
    prompt = lm.prompt(request.prompt, chat=request.chat)
    stops = lm.stop_ids(prompt)
    ids, mask = lm.pack([prompt.ids])
    out: list[int] = lm.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=sorted(stops) or None,
        pad_token_id=min(stops, default=0),
        # The library sizes this cache by the encoder, whatever the decoder's depth.
        use_cache=not lm.encoder_decoder,
    )[0].tolist()
    new = out[1 if lm.encoder_decoder else len(prompt.ids) :]
    ended = bool(new) and new[-1] in stops
    text, stopped = until(lm.decode(new[:-1] if ended else new), prompt.stop_text)
    return Answer(text.strip(), ended or stopped)
