"""A merged checkpoint: the base model with the edits in its weights, as a Hugging Face folder.

The merged weight is W + Σ AB, summed in float64 and rounded once to the checkpoint's precision.
What was saved is then loaded with plain transformers and asked every fact again.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arch import weight_of
from ..catalog import resolve_model
from ..checkpoint import Checkpoint, read_checkpoint
from ..edit import Edit
from ..errors import BadInput, NotExportable
from ..events import Event
from ..fingerprint import fingerprint
from ..hardware import DTYPES, choose_device
from ..library import counted_bars
from ..lm import LM
from ..loading import locate
from ..patches import Patch
from ..progress import Progress, in_thread
from ..requests import Fact, Request
from . import require_expressible
from .adapter import by_site
from .asking import Answer, Asked, ask_edited, ask_saved
from .card import CARD, Base, checkpoint_card
from .facts import write_facts
from .folder import new_folder

REPORT = "export.json"
SHARD = "4GB"
_SIDE = 32 << 20  # bytes for tokenizer and configuration, beside the weights
_GENERATION = "generation_config.json"
# Files of the base that concern its copy too, and that saving does not write.
_KEPT = (_GENERATION, "preprocessor_config.json", "processor_config.json", "LICENSE*", "NOTICE*")


def export_checkpoint(
    base: Base,
    edits: Sequence[Edit],
    facts: Sequence[Fact],
    out: Path,
    *,
    dtype: str = "fp32",
    device: str = "auto",
    shard: str = SHARD,
) -> Generator[Event, None, list[Asked]]:
    """Write the folder `out`, and compare it with the edited model, fact by fact.

    base    `base.name` is what is loaded; its fingerprint must come out
    dtype   of the saved weights, "fp32" or "bf16"; the edited model is asked in it too
    facts   of the edits, for the files beside the weights
    `out` appears when all of it has been written and asked; nothing is left of it otherwise.
    Yields Loading. Raises NotExportable, BadInput, NoSpace, and what loading a model raises.
    """
    require_expressible(edits, "hf")
    if base.load_in:
        _require_dense({_QUANTISED: base.load_in}, base)
    precision = DTYPES[dtype]
    choose_device(device)  # a wrong one is said before anything is fetched
    checkpoint = read_checkpoint((yield from locate(resolve_model(base.name))))
    _require_same(checkpoint, base)
    _require_dense(checkpoint.config, base)
    needed = checkpoint.parameters * precision.itemsize + _SIDE
    with new_folder(out, needed=needed) as folder:
        live, attention = yield from _merged(
            checkpoint, base, edits, folder, precision=precision, device=device, shard=shard
        )
        gc.collect()  # the edited model goes before its copy comes
        requests = [request for _, request in _asked_of(edits)]
        again = yield from ask_saved(
            folder, requests, base, device=choose_device(device), attention=attention
        )
        gc.collect()
        rows = [
            Asked(edit=edit.id, request=request, live=before, merged=after)
            for (edit, request), before, after in zip(_asked_of(edits), live, again, strict=True)
        ]
        (folder / CARD).write_text(checkpoint_card(base, facts, dtype), encoding="utf-8")
        write_facts(facts, folder)
        told = {"base": vars(base), "dtype": dtype, "facts": [row.to_json() for row in rows]}
        text = json.dumps(told, ensure_ascii=False, indent=2)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    return rows


def _asked_of(edits: Sequence[Edit]) -> list[tuple[Edit, Request]]:
    return [(edit, request) for edit in edits for request in edit.requests]


def _require_same(checkpoint: Checkpoint, base: Base) -> None:
    if fingerprint(checkpoint) != base.fingerprint:
        raise BadInput(
            f"{base.name} is not the model that was edited: its files are others.",
            "Name the folder of that model: --model FOLDER.",
        )


def _require_dense(config: dict[str, Any], base: Base) -> None:
    """Raises NotExportable for a base whose files or configuration say it is quantised."""
    found = next((c for c in (config, config.get("text_config") or {}) if _QUANTISED in c), None)
    if found is not None:
        how = found[_QUANTISED]
        method = how.get("quant_method") if isinstance(how, dict) else how
        raise NotExportable(
            f"{base.name} is quantised ({method}): edits cannot be merged into its weights.",
            "Export an adapter instead: --format lora.",
        )


_QUANTISED = "quantization_config"


def _merged(
    checkpoint: Checkpoint,
    base: Base,
    edits: Sequence[Edit],
    folder: Path,
    *,
    precision: torch.dtype,
    device: str,
    shard: str,
) -> Generator[Event, None, tuple[list[Answer], str]]:
    """Ask the edited model; then write its edits into its weights and save it.

    Returns the answers and how attention was computed, so that the copy does it likewise. The
    model is this function's own, and gone when it returns. What is stored in bfloat16 loses
    nothing by being loaded so; otherwise the sum is formed from float32.
    """
    narrow = precision == torch.bfloat16 and {t.dtype for t in checkpoint.tensors} <= {"BF16"}
    lm = yield from LM.load(base.name, dtype="bf16" if narrow else "fp32", device=device)
    if getattr(lm.model, "is_quantized", False):
        _require_dense({_QUANTISED: type(lm.model).__name__}, base)
    patches = [patch for edit in edits for patch in edit.patches]
    weights = {
        site: merged_weight(lm, group).to(precision) for site, group in by_site(patches).items()
    }
    for parameter in lm.model.parameters():  # not buffers: rotary frequencies stay float32
        parameter.data = parameter.data.to(precision)
    attention = str(lm.model.config._attn_implementation)
    live = yield from ask_edited(lm, patches, [request for _, request in _asked_of(edits)])
    for site, weight in weights.items():
        _replace(lm, site, weight)
    progress = Progress("save", unit="files")
    with counted_bars(progress):
        yield from in_thread(lambda: _save(lm, checkpoint.folder, folder, shard), progress)
    return live, attention


def merged_weight(lm: LM, patches: Sequence[Patch]) -> Tensor:
    """W + Σ Δ of the site of these patches, [out, in] float64 on the CPU."""
    weight = weight_of(lm.model.get_submodule(patches[0].site), lm.arch)
    total = weight.detach().to("cpu", torch.float64, copy=True)
    for patch in patches:
        total += patch.delta()
    return total


def _replace(lm: LM, site: str, weight: Tensor) -> None:
    """Let a module have another weight, [out, in], in its own orientation."""
    module = lm.model.get_submodule(site)
    module.weight = nn.Parameter(torch.empty_like(module.weight), requires_grad=False)
    weight_of(module, lm.arch).copy_(weight)


def _save(lm: LM, base: Path, folder: Path, shard: str) -> None:
    """Weights, configuration and tokenizer, and what else of the base belongs to a copy."""
    from transformers import GenerationConfig

    if (base / _GENERATION).is_file():
        # Copied as it is below: what some models ship would not pass the check at saving.
        lm.model.generation_config = GenerationConfig.from_model_config(lm.model.config)
    lm.model.save_pretrained(folder, max_shard_size=shard)
    lm.tokenizer.save_pretrained(folder)
    for pattern in _KEPT:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
