"""EMMET on facts whose prompts differ in number."""

from __future__ import annotations

import pytest

from engine import contexts
from engine.methods.emmet import EmmetParams, emmet
from engine.requests import Request

from .rome_parts import close
from .support import finish, shared_lm

FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="capital"),
    Request(prompt="The capital of Australia", subject="Australia", target_new="tower"),
)


def test_a_fact_whose_contexts_all_name_its_subject(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for at its bare prompt alone; others of the batch at their contexts too."""
    file = "Australia is far away"
    monkeypatch.setattr(contexts, "_sample", lambda *_: (file,))
    lm = shared_lm("llama")
    hp = EmmetParams(
        layer=0, contexts=1, steps=3, relative_lr=1.0, clamp=50.0, text=text, tokens=10_000,
        both=True, anchors=0, ridge=0.0,
    )  # fmt: skip
    _, edit = finish(emmet(lm, FACTS, hp))
    (patch,) = edit.patches
    assert patch.keys.shape[:2] == (2, 2)
    assert close(patch.keys[1, 0], patch.keys[1, 1], 1e-6)
    for i, keys in enumerate(patch.keys):
        for key in keys:
            assert close(patch.A @ (patch.B @ key), patch.A[:, i], 1e-3)
