"""Every test of the engine draws the same random numbers, whatever ran before it."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's generator; TEST_SEED tries other numbers."""
    torch.manual_seed(int(os.environ.get("TEST_SEED", "0")))
