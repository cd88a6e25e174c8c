"""Edits as files: bit for bit, JSON and safetensors, nothing that runs code."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from engine.edit import Edit, new_id
from engine.errors import BadInput
from engine.patches import Dense, LowRank
from engine.requests import Probe, Request


def made() -> Edit:
    torch.manual_seed(0)
    request = Request(
        prompt="Who wrote Emma?",
        subject="Emma",
        target_new="Me",
        target_old="Jane Austen",
        rephrases=("Emma is by whom?",),
        portability=(Probe(prompt="x", answer="y"),),
        chat=True,
        history=(("Hi", "Hello"),),
    )
    wide = torch.randn(3, 8)
    patches = (
        LowRank("a.b", torch.randn(4, 1), torch.randn(1, 8)),
        LowRank("a.b", torch.randn(4, 3), wide.T.contiguous().T),  # not contiguous
        Dense("c", torch.randn(4, 8).to(torch.bfloat16)),
        Dense("c", torch.randn(8, 4).T),
    )
    return Edit(
        method="r-rome",
        requests=(request,),
        patches=patches,
        hparams={"layer": 3, "lr": None},
        provenance={"contexts": ["The"]},
        numbers={"losses": [1.5, 0.25], "seconds": {"solve": 0.1}},
    )


def test_save_and_load_is_bitwise() -> None:
    edit = made()
    described, tensors = edit.save()
    back = Edit.load(json.loads(json.dumps(described, allow_nan=False)), tensors)
    for name in ("id", "method", "requests", "hparams", "provenance", "numbers"):
        assert getattr(back, name) == getattr(edit, name), name
    assert len(back.patches) == len(edit.patches)
    for one, other in zip(edit.patches, back.patches, strict=True):
        assert (one.site, one.kind, one.rank) == (other.site, other.kind, other.rank)
        for name, tensor in one.tensors().items():
            assert tensor.dtype == other.tensors()[name].dtype
            assert torch.equal(tensor, other.tensors()[name])
    assert back.save() == (described, tensors)


def test_many_patches_keep_their_own_tensors() -> None:
    patches = tuple(
        LowRank(f"s{i}", torch.full((2, 1), float(i)), torch.full((1, 2), -float(i)))
        for i in range(12)  # "1." must not catch "10." and "11."
    )
    edit = Edit(method="m", requests=(), patches=patches, hparams={})
    back = Edit.load(*edit.save())
    found = [{name: float(t[0, 0]) for name, t in p.tensors().items()} for p in back.patches]
    assert found == [{"A": float(i), "B": -float(i)} for i in range(12)]


def test_an_unknown_kind_of_patch_is_refused() -> None:
    described, tensors = made().save()
    described["patches"][1]["kind"] = "hypnosis"
    with pytest.raises(BadInput, match="unknown kind of patch 'hypnosis'"):
        Edit.load(described, tensors)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_nothing_is_unpickled(tmp_path: Any) -> None:
    described, tensors = made().save()
    assert not tensors.startswith((b"PK", b"\x80"))  # neither torch.save nor pickle
    file = tmp_path / "bomb.pt"
    torch.save({"0.A": Bomb()}, file)
    with pytest.raises(SafetensorError):
        Edit.load(described, file.read_bytes())


def test_truncated_tensors_are_refused() -> None:
    described, tensors = made().save()
    with pytest.raises(SafetensorError):
        Edit.load(described, tensors[:-4])


def test_ids_are_hex_unique_and_increase_with_time() -> None:
    ids = [new_id() for _ in range(5000)]
    time.sleep(0.002)
    ids.append(new_id())
    assert ids == sorted(set(ids))
    assert int(ids[-1][:11], 16) == pytest.approx(time.time() * 1000, abs=60_000)
    assert all(re.fullmatch(r"[0-9a-f]{16}", i) for i in ids)
