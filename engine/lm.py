"""A model with its tokenizer and its architecture row: everything an editor needs of it."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import generate, hooks, patches, render
from .arch import Arch, arch_for
from .catalog import resolve_model
from .errors import BadRequest
from .events import Event, Loaded
from .generate import Reply
from .loading import load_model
from .patches import Patch
from .render import History
from .statistics import Statistics
from .tokens import Rendered

Packed = tuple[Tensor, Tensor]  # ids, mask: [n, t], left-padded


class LM:
    """A loaded model. Its stored weights are never written.

    model, tokenizer   of Hugging Face transformers
    arch               where its parts are
    chat               whether it has a chat template
    patches            those that are active now
    limit              tokens that it can read, prompt and answer together; None where positions
                       are computed, and a longer text is read too, if not well
    kept               what methods keep for the next edit, by name
    load_in            "4bit" or "8bit" where the weights were quantised as they were loaded
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        source: str = "",
        fingerprint: str = "",
        load_in: str = "",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.source = source or name
        self.fingerprint = fingerprint
        self.load_in = load_in
        self.arch: Arch = arch_for(model.config)
        self.n_layers: int = self.arch.n_layers
        self.width: int = self.arch.width
        limit = getattr(model.config, "max_position_embeddings", None)
        self.limit: int | None = limit if self.arch.bounded else None
        self.chat = render.has_chat_template(tokenizer)
        self.encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        self.statistics = Statistics(self)
        self._accepts = set(inspect.signature(model.forward).parameters)
        self.patches: tuple[Patch, ...] = ()
        self.kept: dict[str, object] = {}
        self._bare = False

    @classmethod
    def load(
        cls, name: str, *, dtype: str = "auto", device: str = "auto", **options: Any
    ) -> Generator[Event, None, LM]:
        """Find, fetch and load a model by alias, hub id or local path. Ends with `Loaded`.

        options  as of `load_model`: device_map, load_in, attn ...
        Raises UnknownName, ModelUnavailable, AssetUnavailable, UnsupportedModel, OutOfMemory.
        """
        began = time.perf_counter()
        source = resolve_model(name)
        out = yield from load_model(source, dtype=dtype, device=device, **options)
        lm = cls(
            out.model,
            out.tokenizer,
            name=name,
            source=out.source,
            fingerprint=out.fingerprint,
            load_in=out.load_in,
        )
        yield Loaded(
            model=name,
            source=lm.source,
            model_type=lm.arch.model_type,
            layers=lm.n_layers,
            width=lm.width,
            dtype=str(lm.dtype).removeprefix("torch."),
            device=str(lm.device),
            chat=lm.chat,
            fingerprint=lm.fingerprint,
            seconds=time.perf_counter() - began,
            bytes=lm.bytes,
            load_in=lm.load_in,
        )
        return lm

    @property
    def device(self) -> torch.device:
        """Where token ids go; of an embedding that is fetched for each pass, where it runs."""
        embedding = self.model.get_input_embeddings()
        device: torch.device = embedding.weight.device
        if device.type == "meta":
            return torch.device(embedding._hf_hook.execution_device)
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def bytes(self) -> int:
        """Size of the parameters in memory; tied ones count once."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    # -- prompts -----------------------------------------------------------------------------

    def render(self, words: str, history: History = ()) -> Rendered:
        """A question as this model is asked it."""
        if self.encoder_decoder:
            return render.encoder_prompt(self.tokenizer, words)
        return render.question(self.tokenizer, words, history)

    def statement(self, text: str) -> Rendered:
        """Text to be continued."""
        if self.encoder_decoder:
            return render.encoder_prompt(self.tokenizer, text)
        return render.statement(self.tokenizer, text)

    def prompt(self, words: str, *, chat: bool, history: History = ()) -> Rendered:
        return self.render(words, history) if chat else self.statement(words)

    def stop_ids(self, prompt: Rendered) -> frozenset[int]:
        """Tokens that end a reply to `prompt`."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        ends = prompt.ending if not prompt.stop_text else ()
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id, *ends) if i is not None)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    # -- running -----------------------------------------------------------------------------

    def pack(self, rows: Sequence[Sequence[int]]) -> Packed:
        """Left-padded ids and attention mask, [n, t], on the model's device."""
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (self.tokenizer.eos_token_id or 0)
        ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.device), mask.to(self.device)

    def room(self, longest: int) -> int:
        """How many tokens can be chosen after a prompt of this many; the last is never read."""
        return sys.maxsize if self.limit is None else max(self.limit + 1 - longest, 1)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        cache: Any = None,
        at: tuple[Tensor, Tensor] | None = None,
        use_cache: bool = False,
        decoded: Tensor | None = None,
    ) -> Any:
        """The model's own forward pass over `ids` [n, t], after what `cache` holds.

        mask     [n, past + t]; positions follow from it, whichever side the padding is on
        at       (rows, columns) of the positions whose logits are wanted: `.logits` is then
                 [1, len(rows), vocab]; the head runs once, on those alone
        decoded  [n, s] what the decoder of an encoder-decoder reads; columns are its, then
        """
        self.check_fits(mask.shape[1])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": use_cache}
        if "position_ids" in self._accepts:
            positions = mask.cumsum(-1).sub(1).clamp_min(0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        if cache is not None:
            inputs |= self.going_on(cache)
        if decoded is not None:
            inputs["decoder_input_ids"] = decoded
        if at is None:
            return self.model(**inputs)
        rows, columns = at

        def gather(hidden: Tensor) -> Tensor:
            return hidden[rows, columns][None]

        with hooks.rewritten_input(self.model, self.arch.lm_head, gather):
            return self.model(**inputs)

    def body(self, ids: Tensor, mask: Tensor, *, cache: Any = None) -> Any:
        """`forward` without the language-model head."""
        self.check_fits(mask.shape[1])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if "position_ids" in self._accepts:
            inputs["position_ids"] = mask.cumsum(-1).sub(1).clamp_min(0)[:, -ids.shape[1] :]
        if cache is not None:
            inputs |= self.going_on(cache)
        return self.model.base_model(**inputs)

    def going_on(self, cache: Any) -> dict[str, Any]:
        """Arguments of the model's forward pass with which it goes on behind what `cache` holds,
        and adds to it."""
        name = "cache" if "cache" in self._accepts else "past_key_values"  # transformers < 5.24
        return {name: cache, "use_cache": True}

    def check_fits(self, tokens: int) -> None:
        """Raises BadRequest for a sequence that is longer than the model's table of positions."""
        if self.limit is not None and tokens > self.limit:
            raise BadRequest(
                f"the text has {tokens} tokens; {self.name} reads at most {self.limit}.",
                "Shorten it.",
            )

    @contextmanager
    def active(self, active: Iterable[Patch]) -> Iterator[None]:
        """Run with these patches; afterwards nothing of them is left in the model."""

        def unless_bare(change: hooks.Change) -> hooks.Change:
            return lambda x, y: y if self._bare else change(x, y)

        added = tuple(active)
        found = patches.changes(added, self.device)
        before, self.patches = self.patches, (*self.patches, *added)
        try:
            with hooks.patched(self.model, {site: unless_bare(c) for site, c in found.items()}):
                yield
        finally:
            self.patches = before

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Within `active`: run as if there were no patches. Do not hold it across a yield."""
        before, self._bare = self._bare, True
        try:
            yield
        finally:
            self._bare = before

    # -- asking ------------------------------------------------------------------------------

    def generate(self, prompt: Rendered, **options: Any) -> Generator[Event, None, Reply]:
        """Stream a reply: see `engine.generate.stream`."""
        return generate.stream(self, prompt, **options)

    def reply(self, prompt: Rendered, max_tokens: int = 64) -> Reply:
        """The greedy reply, by the same path that chat takes."""
        return generate.finish(generate.stream(self, prompt, max_tokens=max_tokens))

    def answers(self, prompts: Sequence[Rendered], max_tokens: int = 64) -> list[str]:
        """Greedy replies of many prompts, in batches."""
        return generate.batched(self, prompts, max_tokens)

    @torch.no_grad()
    def logits(self, prompts: Sequence[Rendered]) -> Tensor:
        """Next-token logits [n, vocab], one prompt at a time so that they repeat bit for bit."""
        return torch.cat([generate.begin(self, *self.pack([p.ids]))[0] for p in prompts])

    def site(self, role: str, layer: int) -> str:
        """Full module name of a part of a layer: "mlp_out", "block", ..."""
        return self.arch.site(role, layer)

    def subject_site(self, role: str, layer: int) -> str:
        """`site`, in the stack that reads the subject: see `Arch.reader`."""
        return self.arch.reader.site(role, layer)
