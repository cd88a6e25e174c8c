"""Hooks: they see, they change, and they are gone afterwards, however the block ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import hooks

from .support import traces


class Block(nn.Module):
    """A module that returns a tuple, as attention blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, str]:
        return self.fc(x) * scale, "rest"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = Block(), Block(), nn.Linear(4, 3)
        self.ran: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        for name in ("one", "two"):
            self.ran.append(name)
            x, rest = self.get_submodule(name)(x, scale=2.0)
            assert rest == "rest"
        self.ran.append("head")
        return self.head(x)  # type: ignore[no-any-return]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def x() -> Tensor:
    return torch.arange(8.0).view(2, 4)


def test_capture_outputs_and_inputs(model: Model, x: Tensor) -> None:
    with hooks.capture(model, "one", "one.fc", "head") as out:
        y = model(x)
    with hooks.capture(model, "one", "two", inputs=True) as into:
        model(x)
    assert torch.equal(out["head"], y)
    assert torch.equal(out["one"], out["one.fc"] * 2)
    assert torch.equal(into["one"], x)
    assert torch.equal(into["two"], out["one"])


def test_stop_ends_the_pass_when_all_were_seen(model: Model, x: Tensor) -> None:
    with hooks.capture(model, "two", "one", stop=True) as seen:
        model(x)
        pytest.fail("the pass should have ended")
    assert model.ran == ["one", "two"]
    assert set(seen) == {"one", "two"}


def test_changes_replace_outputs_and_keep_the_rest_of_a_tuple(model: Model, x: Tensor) -> None:
    with hooks.patched(model, {"one": lambda x, y: y + x.sum()}), hooks.capture(model, "one") as s:
        model(x)
    with hooks.capture(model, "one") as plain:
        model(x)
    assert torch.equal(s["one"], plain["one"] + x.sum())


def test_changes_stack_in_the_order_they_were_entered(model: Model, x: Tensor) -> None:
    with (
        hooks.patched(model, {"head": lambda _, y: y + 1}),
        hooks.patched(model, {"head": lambda _, y: y * 10}),
    ):
        found = model(x)
    assert torch.allclose(found, (model(x) + 1) * 10)


def test_inputs_can_be_rewritten(model: Model, x: Tensor) -> None:
    with hooks.capture(model, "two") as seen:
        model(x)
    with hooks.rewritten_input(model, "head", lambda h: h[1:]):
        found = model(x)
    assert torch.equal(found, model.head(seen["two"][1:]))


def test_skipped_modules_do_not_run(model: Model, x: Tensor) -> None:
    plain = model(x)
    with hooks.raw_outputs(model, "one") as whole:
        model(x)
    assert isinstance(whole["one"], tuple)
    assert whole["one"][1] == "rest"
    with hooks.skipped(model, whole):
        assert torch.equal(model(x * 0), plain)  # what goes in no longer matters
    assert not torch.equal(model(x * 0), plain)


def test_skipping_keeps_a_forward_that_others_put_there(model: Model, x: Tensor) -> None:
    """Libraries that spread a model over devices replace `forward` on the instance."""
    theirs = model.one.forward
    model.one.forward = lambda *a, **k: theirs(*a, **k)  # type: ignore[method-assign]
    ours = model.one.__dict__["forward"]
    with hooks.skipped(model, {"one": (x, "rest")}):
        model(x)
    assert model.one.__dict__["forward"] is ours


ENTRIES: dict[str, Callable[[Model], AbstractContextManager[Any]]] = {
    "capture": lambda m: hooks.capture(m, "one", "two.fc"),
    "stop": lambda m: hooks.capture(m, "head", stop=True),
    "patched": lambda m: hooks.patched(m, {"one": lambda _, y: y, "head": lambda _, y: y}),
    "rewritten_input": lambda m: hooks.rewritten_input(m, "head", lambda h: h),
    "skipped": lambda m: hooks.skipped(m, {"one": (torch.zeros(2, 4), "rest")}),
    "raw_outputs": lambda m: hooks.raw_outputs(m, "one", "two"),
}


def _fail(_x: Tensor, _y: Tensor) -> Tensor:
    raise ZeroDivisionError


entries = pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)


@entries
def test_nothing_is_left_after_success(model: Model, x: Tensor, enter: Any) -> None:
    with enter(model):
        assert traces(model)
        model(x)
    assert traces(model) == {}


@entries
def test_nothing_is_left_after_an_exception(model: Model, x: Tensor, enter: Any) -> None:
    with pytest.raises(ZeroDivisionError), hooks.patched(model, {"two": _fail}), enter(model):
        model(torch.zeros(2, 4))
    assert traces(model) == {}
    with pytest.raises(KeyboardInterrupt), enter(model):
        raise KeyboardInterrupt
    assert traces(model) == {}


@entries
def test_nothing_is_left_after_a_generator_is_closed(model: Model, enter: Any) -> None:
    def job() -> Iterator[int]:
        with enter(model):
            yield 1
            yield 2

    running = job()
    next(running)
    assert traces(model)
    running.close()
    assert traces(model) == {}


@pytest.mark.parametrize(
    "enter",
    [
        lambda m: hooks.capture(m, "one", "nowhere"),
        lambda m: hooks.patched(m, {"one": lambda _, y: y, "nowhere": lambda _, y: y}),
        lambda m: hooks.skipped(m, {"one": 1, "nowhere": 2}),
        lambda m: hooks.raw_outputs(m, "one", "nowhere"),
    ],
)
def test_nothing_is_left_when_a_name_is_wrong(model: Model, enter: Any) -> None:
    with pytest.raises(AttributeError, match="nowhere"), enter(model):
        pytest.fail("entered")
    assert traces(model) == {}


def test_other_errors_pass_through_a_stopping_capture(model: Model, x: Tensor) -> None:
    with pytest.raises(ZeroDivisionError), hooks.capture(model, "head", stop=True):
        raise ZeroDivisionError
