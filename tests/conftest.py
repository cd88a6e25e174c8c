"""Every test gets a home and a cache of its own, and no hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples at every run, however busy the machine; --hypothesis-profile=default: others.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")

# Read when the hub's client is imported: nothing of the user's, and nothing over the network.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do their programs
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    """LLM_EDIT_HOME and LLM_EDIT_CACHE in a temporary folder.

    Tests marked e2e run on the real default model and share its cache, which they fill once.
    """
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("LLM_EDIT_HOME", str(folder / "home"))
    if not request.node.get_closest_marker("e2e"):
        monkeypatch.setenv("LLM_EDIT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_folder(family, chat=False, **fields)`: a saved tiny model, made once a run."""
    from tests.tiny import save_tiny

    made: dict[tuple[Any, ...], Path] = {}

    def folder(family: str, *, chat: bool = False, **fields: Any) -> Path:
        key = (family, chat, *sorted(fields.items()))
        if key not in made:
            made[key] = save_tiny(tmp_path_factory.mktemp(family), family, chat=chat, **fields)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def tiny_lm() -> Callable[..., Any]:
    """`tiny_lm(family, **fields)`: an LM of a tiny model; a new one at each call."""
    from engine.lm import LM
    from tests.tiny import tiny_model, tiny_tokenizer

    def lm(family: str, **fields: Any) -> Any:
        model = tiny_model(family, **fields)
        return LM(model, tiny_tokenizer(family), name=f"tiny-{family}", fingerprint=family)

    return lm
