"""What is computed while nothing is asked, and who ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tui.preparing import Preparing

LARGE = {"tokens": "2000"}


@pytest.fixture
def begun(tiny_lm: Callable[..., Any], tmp_path: Any) -> Preparing:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"The river {i} runs to the sea." for i in range(80)), "utf-8")
    hp = {"layer": "0", "text": str(text), "contexts": "0", **LARGE}
    preparing = Preparing(tiny_lm("llama"), "r-rome", hp, 0)
    next(preparing.work)
    return preparing


def test_a_correction_with_its_method_ends_it(begun: Preparing) -> None:
    assert list(begun.ended("r-rome"))
    assert list(begun.work) == []


def test_a_cancelled_correction_leaves_it_as_it_is(begun: Preparing) -> None:
    correction = begun.ended("r-rome")
    next(correction)
    correction.close()
    assert next(begun.work, None) is not None


def test_a_correction_with_another_method_gives_it_up(begun: Preparing) -> None:
    assert list(begun.ended("ft-m")) == []
    assert list(begun.work) == []


def test_a_failure_is_for_the_correction_itself_to_say(tiny_lm: Callable[..., Any]) -> None:
    lost = Preparing(tiny_lm("llama"), "r-rome", {"layer": "0", "text": "/nowhere.txt"}, 0)
    assert list(lost.ended("r-rome")) == []
