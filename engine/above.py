"""Running a model again and again while something at a layer and above it is trained.

What `rerun` keeps cannot be kept here: a weight acts at every position, so that only what
enters the lowest trained layer is constant. That is run once and kept (`Above`), and a step runs
the layers from there up. Logits are needed where a target's tokens are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from . import hooks
from .rerun import right_padded
from .tokens import Rendered, end_of_text, first_of_old, target_ids

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request


@dataclass(frozen=True)
class Example:
    """A target after a prompt.

    fed     tokens that the decoder reads
    wanted  positions in it whose next-token logits are read, one per token of the target
    target  the tokens wanted there
    encoded what the encoder reads, of an encoder-decoder model
    old     first token of the old answer, where it is known and begins otherwise; -1
    """

    fed: tuple[int, ...]
    wanted: tuple[int, ...]
    target: tuple[int, ...]
    encoded: tuple[int, ...] = ()
    old: int = field(default=-1, compare=False)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt's ids, where the target's tokens are predicted at their own positions."""
        return self.encoded or self.fed[: self.wanted[0] + 1]


def example(
    lm: LM, prompt: Rendered, request: Request, *, end: bool = False, own: bool = True
) -> Example:
    """The request's target after a prompt.

    end  statements too: the target is to end the text
    own  each token is predicted at its own position, the ones before it read; otherwise all of
         them at the prompt's last position
    """
    ending = end_of_text(lm.tokenizer, prompt) if end else ()
    target = (*target_ids(lm.tokenizer, prompt, request.target_new), *ending)
    old = first_of_old(lm.tokenizer, prompt, request.target_new, request.target_old)
    return placed(lm, prompt.ids, target, own=own, old=old)


def examples(
    lm: LM,
    requests: Sequence[Request],
    prompts: Sequence[Sequence[Rendered]],
    *,
    end: bool = False,
    own: bool = True,
) -> list[Example]:
    """Per request an `example` of its target after each of its prompts, one after the other."""
    return [
        example(lm, prompt, request, end=end, own=own)
        for request, each in zip(requests, prompts, strict=True)
        for prompt in each
    ]


def placed(
    lm: LM, prompt: Sequence[int], target: Sequence[int], *, own: bool = True, old: int = -1
) -> Example:
    """An example from the ids of its prompt and its target: see `example`."""
    before = tuple(prompt)
    encoded: tuple[int, ...] = ()
    if lm.encoder_decoder:
        before, encoded = (lm.model.config.decoder_start_token_id,), before
    fed = (*before, *target[:-1]) if own else before
    at = len(before) - 1
    wanted = tuple(range(at, at + len(target))) if own else (at,) * len(target)
    return Example(fed, wanted, tuple(target), encoded, old)


class Above:
    """Examples, run from a layer up. More of them can be added: see `rows`.

    `fast=False` runs all of the model, each time; the two agree to rounding.
    """

    def __init__(
        self, lm: LM, examples: Sequence[Example], layer: int, *, fast: bool = True
    ) -> None:
        """layer: of the decoder; what is in force below it must not change any more."""
        self.examples: tuple[Example, ...] = ()
        self._lm = lm
        self._fast = fast
        self._below = [lm.site("block", i) for i in range(layer)] if fast else []
        self._encoder: tuple[Tensor, Tensor] | None = None  # ids or states, and mask
        self._reached: Any = None  # what enters the layer
        if examples:
            self._add(examples)

    def rows(self, examples: Sequence[Example]) -> list[int]:
        """Where these examples stand; those that are new are added."""
        known = {each: i for i, each in enumerate(self.examples)}
        fresh = [each for each in dict.fromkeys(examples) if each not in known]
        if fresh:
            known |= {each: len(known) + i for i, each in enumerate(fresh)}
            self._add(fresh)
        return [known[each] for each in examples]

    def log_p(self, of: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Per example of `of` (None: all) log-probabilities [target, vocab] float32."""
        chosen = list(range(len(self.examples)) if of is None else of)
        wanted = [self.examples[i].wanted for i in chosen]
        rows = torch.tensor([row for row, own in enumerate(wanted) for _ in own])
        columns = torch.tensor([column for own in wanted for column in own])

        def gather(hidden: Tensor) -> Tensor:
            return hidden[rows, columns][None]

        lm = self._lm
        longest = max(len(self.examples[i].fed) for i in chosen)
        if self._lm.encoder_decoder:
            longest = self._ids.shape[1]  # the position biases that were kept are of all columns
        blocks = dict.fromkeys(self._below, self._of(chosen, longest))
        with ExitStack() as stack:
            stack.enter_context(hooks.skipped(lm.model, blocks))
            stack.enter_context(hooks.rewritten_input(lm.model, lm.arch.lm_head, gather))
            logits = self._forward(chosen, longest).logits[0]
        return torch.split(logits.float().log_softmax(-1), [len(own) for own in wanted])

    @torch.no_grad()
    def widths(self, site: str) -> tuple[int, int]:
        """How wide is what goes into a module, and what comes out of it."""
        with (
            hooks.capture(self._lm.model, site, inputs=True) as x,
            hooks.capture(self._lm.model, site) as y,
        ):
            self.log_p([0])
        return x[site].shape[-1], y[site].shape[-1]

    def _add(self, fresh: Sequence[Example]) -> None:
        lm, old = self._lm, len(self.examples)
        self.examples = (*self.examples, *fresh)
        fed = [each.fed for each in self.examples]
        self._ids, self._mask = (x.to(lm.device) for x in right_padded(fed))
        if lm.encoder_decoder:  # its position biases depend on who is beside whom
            self._encoder = lm.pack([each.encoded for each in self.examples])
            old, self._reached = 0, None
        if self._fast:
            self._measure(range(old, len(self.examples)))

    def _forward(self, chosen: Sequence[int], longest: int) -> Any:
        ids, mask = self._ids[chosen, :longest], self._mask[chosen, :longest]
        if self._encoder is None:
            return self._lm.forward(ids, mask)
        given, seen = (x[chosen] for x in self._encoder)
        encoder = {"encoder_outputs": (given,)} if given.dim() == 3 else {"input_ids": given}
        return self._lm.model(
            **encoder, attention_mask=seen, decoder_input_ids=ids, use_cache=False
        )

    @torch.no_grad()
    def _measure(self, fresh: Sequence[int]) -> None:
        """Run what is constant: the encoder, and the blocks below."""
        lm = self._lm
        if self._encoder is not None:
            ids, mask = self._encoder
            states = lm.model.get_encoder()(input_ids=ids, attention_mask=mask)
            self._encoder = (states.last_hidden_state, mask)
        if not self._below:
            return
        last = self._below[-1]
        with (
            hooks.raw_outputs(lm.model, last) as blocks,
            hooks.capture(lm.model, last, stop=True),
        ):
            self._forward(list(fresh), self._ids.shape[1])
        found = blocks[last]
        if self._reached is not None:  # those that were there already, and the fresh ones
            before, fresh_ = (hooks.first(x) for x in (self._reached, found))
            room = fresh_.shape[1] - before.shape[1]
            both = torch.cat([functional.pad(before, (0, 0, 0, room)), fresh_])
            found = (both, *found[1:]) if isinstance(found, tuple) else both
        self._reached = found

    def _of(self, rows: Sequence[int], longest: int) -> Any:
        """What enters the layer, for some rows: a tensor, or a tuple with others that go with it
        (T5's position biases, some of which have a row per example)."""
        found = self._reached
        if not isinstance(found, tuple):
            return found if found is None else found[rows, :longest]
        n = len(self.examples)
        hidden, *others = found
        mine = (x[rows] if isinstance(x, Tensor) and x.dim() and len(x) == n else x for x in others)
        return (hidden[rows, :longest], *mine)


def nll(log_p: Sequence[Tensor], examples: Sequence[Example]) -> Tensor:
    """−log p of each example's target, the mean over its tokens: [n]."""
    losses = []
    for own, example in zip(log_p, examples, strict=True):
        target = torch.tensor(example.target, device=own.device)
        losses.append(-own.gather(1, target[:, None]).mean())
    return torch.stack(losses)
