"""Memory that runs out: recognised on every device, said with a remedy, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.batch import correct_batch
from engine.errors import OutOfMemory, no_memory
from engine.events import EditStep, Problem
from engine.ledger import Ledger
from engine.library import in_words
from engine.lm import LM
from engine.requests import Request
from engine.worker import Worker, describe

from .support import CORPUS, shared_lm, state, traces

FACTS = (
    Request(prompt="The city of the Space Needle", subject="Space Needle", target_new="capital"),
    Request(prompt="The capital of Australia", subject="Australia", target_new="tower"),
)


def allocate() -> None:
    """More than there can be: refused at once."""
    torch.empty(2**60, dtype=torch.uint8)


def test_the_cpu_allocator_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        allocate()
    assert type(raised.value) is RuntimeError
    assert no_memory(raised.value)
    problem = describe(raised.value)
    assert (problem.error, problem.exit_code) == ("OutOfMemory", OutOfMemory.exit_code)
    for words in ("--hp together=", "smaller file", "smaller model", "--dtype", "--device cpu"):
        assert words in problem.remedy


def test_other_runtime_errors_are_not() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not no_memory(raised.value)


def test_the_words_of_other_systems_are_recognised() -> None:
    for words in ("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
                  "MPS backend out of memory (MPS allocated: 8 GB)"):  # fmt: skip
        assert no_memory(RuntimeError(words))
        assert not no_memory(ValueError(words))


def test_a_model_that_does_not_fit_on_the_cpu(tmp_path: Path) -> None:
    said = r"does not fit into memory.*smaller model"
    with pytest.raises(OutOfMemory, match=said), in_words(tmp_path):
        allocate()


def test_an_edit_that_runs_out_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, ledger = shared_lm("llama"), Ledger()
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CORPUS), encoding="utf-8")
    hp = {
        "first": "0", "last": "1", "contexts": "2", "steps": "6", "relative_lr": "1",
        "stop_loss": "0", "text": str(text), "tokens": "10000",
    }  # fmt: skip
    prompts = [lm.statement(fact.prompt) for fact in FACTS]
    unedited, before, hooks = lm.logits(prompts), state(lm.model), traces(lm.model)
    worker = Worker()
    try:

        def edit() -> Any:
            return worker.submit(
                "correct", lambda: correct_batch(lm, ledger, FACTS, method="memit", overrides=hp)
            )

        with monkeypatch.context() as patch:
            patch.setattr(LM, "forward", _failing_from(LM.forward, 3))
            job = edit()
            with pytest.raises(OutOfMemory) as raised:
                job.value()
        assert raised.value.remedy
        (problem,) = [e for e in job.events if isinstance(e, Problem)]
        assert (problem.error, problem.remedy) == ("OutOfMemory", raised.value.remedy)
        assert len([e for e in job.events if isinstance(e, EditStep)]) == 3

        assert ledger.edits == lm.patches == ()
        assert (state(lm.model), traces(lm.model)) == (before, hooks)
        assert torch.equal(lm.logits(prompts), unedited)
        assert edit().value().edit in ledger.edits
        with lm.active(ledger.patches()):
            assert not torch.equal(lm.logits(prompts), unedited)
    finally:
        worker.close()


def _failing_from(forward: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """LM.forward that runs out of memory at the pass after so many with a gradient."""
    seen = 0

    def run(*args: Any, **options: Any) -> Any:
        nonlocal seen
        if torch.is_grad_enabled():
            seen += 1
            if seen > steps:
                allocate()
        return forward(*args, **options)

    return run
