"""The rows of tokens that the loss of v* is read on, and whose turn it is (engine/values.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .above import placed
from .evaluate.normalise import unspaced
from .rerun import Row
from .tokens import Rendered, last_token, parting

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request


def row_of(lm: LM, prompt: Rendered, subject: str, target: Sequence[int]) -> Row:
    """A prompt with the target behind it; an encoder reads the one, a decoder the other."""
    lookup, read = last_token(prompt, subject), placed(lm, prompt.ids, target)
    if lm.encoder_decoder:
        return Row(read.encoded, lookup, read.wanted, read.fed)
    return Row(read.fed, lookup, read.wanted)


def essence(lm: LM, request: Request) -> Row:
    """ "{subject} is a", cut behind the subject: what the subject is must stay as it was.

    An encoder reads all of it, and the decoder is about to begin to continue it.
    """
    assert request.subject is not None
    prompt = lm.prompt(f"{request.subject} is a", chat=request.chat)
    lookup = last_token(prompt, request.subject)
    if lm.encoder_decoder:
        return Row(prompt.ids, lookup, (0,), (lm.model.config.decoder_start_token_id,))
    return Row(prompt.ids[: lookup + 1], lookup, (lookup,))


def turns(prompts: int, count: int) -> list[list[int]]:
    """Which prompts a step sees: the bare one (0) and every `count`-th context, the next ones
    at the next step. What a step costs falls almost by `count`.
    """
    count = max(1, min(count, prompts - 1))
    return [[0, *range(1 + turn, prompts, count)] for turn in range(count)]


def parted(lm: LM, target: str) -> Tensor | None:
    """[vocab] 0 for tokens that may stand behind a whole word, −∞ for those that go on with it;
    None where the target ends in no word."""
    last = target.rstrip()[-1:]
    if not last.isalnum() or unspaced(last):
        return None
    found = lm.kept.get("parting")
    if not isinstance(found, Tensor):
        size = lm.model.get_output_embeddings().weight.shape[0]
        found = torch.tensor(parting(lm.tokenizer, size), device=lm.device).float().log()
        lm.kept["parting"] = found
    return found
