"""One edit: what was asked, what came of it, and how it was made. JSON and safetensors only."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from .errors import BadInput
from .patches import KINDS, LowRank, Patch
from .requests import Request

JsonDict = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Edit:
    """An immutable edit.

    id          16 hex digits
    requests    the facts
    patches     what changes in the forward pass
    hparams     every hyper-parameter used; `sources` says where each came from
    provenance  model fingerprint, seed, dtype, library versions
    numbers     what the method measured on the way (denominator, norms, losses ...)
    supersedes  ids of the edits of the same question that do not act while this one stands
    """

    method: str
    requests: tuple[Request, ...]
    patches: tuple[Patch, ...]
    hparams: JsonDict
    provenance: JsonDict = field(default_factory=dict)
    numbers: JsonDict = field(default_factory=dict)
    supersedes: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: new_id())

    @property
    def row_each(self) -> bool:
        """Whether every fact has a row of keys of its own in every low-rank patch."""
        kept = [patch.keys for patch in self.patches if isinstance(patch, LowRank)]
        return all(keys is not None and len(keys) == len(self.requests) for keys in kept)

    def releasing(self, asked: Collection[Any]) -> tuple[Patch, ...]:
        """The patches, acting as they do, without the keys of these questions: an edit that is
        made on top of them is to move those, not to hold them in place.

        asked  see `Request.key`
        """
        held = [request.key() not in asked for request in self.requests]
        if all(held) or not self.row_each:
            return self.patches
        return tuple(_holding(patch, held) for patch in self.patches)

    def save(self) -> tuple[JsonDict, bytes]:
        """A JSON-safe description, and the tensors as safetensors bytes."""
        tensors = {
            f"{i}.{name}": tensor.detach().cpu().contiguous()
            for i, patch in enumerate(self.patches)
            for name, tensor in patch.tensors().items()
        }
        described = {
            "id": self.id,
            "method": self.method,
            "requests": [r.to_json() for r in self.requests],
            "patches": [{"kind": p.kind, "site": p.site} for p in self.patches],
            "hparams": self.hparams,
            "provenance": self.provenance,
            "numbers": self.numbers,
            "supersedes": list(self.supersedes),
        }
        return described, save_tensors(tensors)

    @classmethod
    def load(cls, described: JsonDict, tensors: bytes) -> Edit:
        """What `save` wrote.

        Raises BadInput for a kind of patch this version does not know.
        """
        found = load_tensors(tensors)
        patches = []
        for i, entry in enumerate(described["patches"]):
            if entry["kind"] not in KINDS:
                raise BadInput(f"edit {described['id']}: unknown kind of patch {entry['kind']!r}.")
            prefix = f"{i}."
            own = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
            patches.append(KINDS[entry["kind"]].from_tensors(entry["site"], own))
        described = {"supersedes": (), **described}  # absent from what earlier versions wrote
        values = {f.name: described[f.name] for f in dataclasses.fields(cls)}
        values["requests"] = tuple(Request.from_json(r) for r in described["requests"])
        values["patches"] = tuple(patches)
        values["supersedes"] = tuple(described["supersedes"])
        return cls(**values)


def _holding(patch: Patch, facts: list[bool]) -> Patch:
    if not isinstance(patch, LowRank) or patch.keys is None:
        return patch
    held = torch.tensor(facts, device=patch.keys.device)
    return dataclasses.replace(patch, keys=patch.keys * held[:, None, None])


_CHANCE = 20  # random bits below 44 bits of milliseconds
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """16 hex digits that increase with time: no two of a process are the same."""
    global _last
    fresh = int(time.time() * 1000) << _CHANCE | int.from_bytes(os.urandom(3), "big") >> 4
    with _lock:
        if fresh >> _CHANCE <= _last >> _CHANCE:
            fresh = _last + 1  # same millisecond, or the clock went back
        _last = fresh
    return f"{fresh:016x}"
