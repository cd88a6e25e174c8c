"""Edits for export: random patches on tiny models, and targets that the patched model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.arch import weight_of
from engine.catalog import resolve_model
from engine.checkpoint import read_checkpoint
from engine.edit import Edit
from engine.export.card import Base
from engine.fingerprint import fingerprint
from engine.lm import LM
from engine.loading import load_model
from engine.patches import LowRank, Patch
from engine.requests import Fact, Request
from tests.engine.support import finish

PROMPTS = ("The capital of Australia is", "Who wrote Emma?", "The Space Needle is in")
TOKENS = 12  # of an answer, where a test need not be slower


def load(folder: Path, dtype: str = "fp32") -> LM:
    """A model folder as llm-edit loads it."""
    _, out = finish(load_model(resolve_model(str(folder)), dtype=dtype, device="cpu"))
    return LM(out.model, out.tokenizer, name=str(folder), fingerprint=out.fingerprint)


def base_of(folder: Path) -> Base:
    checkpoint = read_checkpoint(folder)
    return Base(
        name=str(folder),
        source=str(folder),
        fingerprint=fingerprint(checkpoint),
        model_type=checkpoint.config["model_type"],
    )


def random_patch(lm: LM, layer: int, rank: int, seed: int, scale: float = 0.1) -> LowRank:
    site = lm.site("mlp_out", layer)
    out, into = weight_of(lm.model.get_submodule(site), lm.arch).shape
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(out, rank, generator=generator)
    return LowRank(site, A, scale * torch.randn(rank, into, generator=generator))


def patches_of(lm: LM) -> list[LowRank]:
    """Three at two sites: ranks 3 and 1 (so that a pattern of ranks is needed)."""
    return [random_patch(lm, 1, 2, 0), random_patch(lm, 0, 1, 1), random_patch(lm, 1, 1, 2)]


def edits_of(
    lm: LM, patches: Sequence[Patch], *, chat: bool = False, tokens: int = TOKENS
) -> list[Edit]:
    """One edit a patch; each target is what the model with all of them says."""
    edits = []
    with lm.active(patches):
        for prompt, patch in zip(PROMPTS, patches, strict=False):
            said = lm.reply(lm.prompt(prompt, chat=chat), tokens).text or "nothing"
            request = Request(prompt=prompt, target_new=said, chat=chat)
            edits.append(Edit("r-rome", (request,), (patch,), {"layer": 1}))
    return edits


def facts_of(edits: Sequence[Edit]) -> list[Fact]:
    return [Fact(request=r, method=e.method, hparams=e.hparams) for e in edits for r in e.requests]


class Shelf:
    """A kind of patch as of a codebook: it says nothing of formats that could hold it."""

    kind = "shelf"

    def __init__(self, site: str, keys: Tensor) -> None:
        self.site, self.keys = site, keys

    def tensors(self) -> dict[str, Tensor]:
        return {"keys": self.keys}

    @classmethod
    def from_tensors(cls, site: str, tensors: dict[str, Tensor]) -> Shelf:
        return cls(site, tensors["keys"])
