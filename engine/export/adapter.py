"""A PEFT LoRA adapter from low-rank patches. Needs safetensors, not peft.

LoRA adds `scaling · B_lora(A_lora x)` to a module's output, with `scaling = alpha / r`. A
low-rank patch adds `A(Bx)`: it *is* a LoRA, with A_lora = B [r, in], B_lora = A [out, r] and
alpha = r. The patches of a site are one LoRA whose rank is the sum of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..arch import row_for
from ..edit import Edit
from ..patches import LowRank, Patch
from ..requests import Fact
from . import require_expressible
from .card import CARD, Base, adapter_card
from .facts import write_facts

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of module names inside peft's wrapper


def write_adapter(
    edits: Sequence[Edit], facts: Sequence[Fact], base: Base, folder: Path
) -> dict[str, int]:
    """Write the adapter of these edits, in ledger order, into an empty folder; rank by module.

    The base model need not be there. Raises NotExportable.
    """
    require_expressible(edits, "lora")
    patches = [patch for edit in edits for patch in edit.patches]
    tensors: dict[str, torch.Tensor] = {}
    sites: dict[str, int] = {}
    for site, group in by_site(patches).items():
        factors = [p for p in group if isinstance(p, LowRank)]
        assert len(factors) == len(group), "what declares lora is a pair of factors"
        A = torch.cat([p.A for p in factors], dim=1).to("cpu", torch.float32)  # [out, r]
        B = torch.cat([p.B for p in factors], dim=0).to("cpu", torch.float32)  # [r, in]
        tensors[f"{_PREFIX}{site}.lora_A.weight"] = B.contiguous()
        tensors[f"{_PREFIX}{site}.lora_B.weight"] = A.contiguous()
        sites[site] = A.shape[1]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(configuration(sites, base), indent=2) + "\n")
    (folder / CARD).write_text(adapter_card(base, facts, sites), encoding="utf-8")
    write_facts(facts, folder)
    return sites


def configuration(sites: dict[str, int], base: Base) -> dict[str, Any]:
    """What `peft.LoraConfig` reads. `r` is the largest rank, and every scaling is 1.

    Readers that know no patterns still scale by `lora_alpha / r` = 1.
    """
    largest = max(sites.values())
    odd = {site: rank for site, rank in sites.items() if rank != largest}
    row = row_for(base.model_type)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if row.encoder else "CAUSAL_LM",
        "base_model_name_or_path": base.place,
        "revision": base.revision,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "target_modules": list(sites),
        "fan_in_fan_out": row.transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def by_site(patches: Iterable[Patch]) -> dict[str, list[Patch]]:
    """Patches in order, by the module that they belong to."""
    found: dict[str, list[Patch]] = {}
    for patch in patches:
        found.setdefault(patch.site, []).append(patch)
    return found
