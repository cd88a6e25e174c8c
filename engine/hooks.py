"""Looking into a running model and changing what flows through it.

The only place where hooks are registered. Everything here is a context manager that leaves
the model as it found it, after success, error and cancel alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import Tensor, nn

Change = Callable[[Tensor, Tensor], Tensor]  # (module input, module output) -> new output


class _Enough(Exception):
    """Everything asked for has been seen; the rest of the forward pass is not needed."""


@contextmanager
def capture(
    model: nn.Module, *names: str, inputs: bool = False, stop: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Record the outputs (or first inputs) of the named modules during the block.

    stop   end the block as soon as the last of `names` has run: nothing above it is computed
    Yields a dict from name to tensor, filled while the model runs. Inputs are not copied.
    """
    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Copied: Falcon adds the attention's output to the MLP's in place.
            seen[name] = args[0] if inputs else first(output).clone()
            if stop and len(seen) == len(names):
                raise _Enough

        return record

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(recorder(name))
            stack.callback(handle.remove)
        with suppress(_Enough):
            yield seen


@contextmanager
def patched(model: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Replace the outputs of the named modules by what `change(input, output)` returns."""

    def replacer(change: Change) -> Callable[..., Any]:
        def replace(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            changed = change(args[0], first(output))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return replace

    with ExitStack() as stack:
        for name, change in changes.items():
            handle = model.get_submodule(name).register_forward_hook(replacer(change))
            stack.callback(handle.remove)
        yield


@contextmanager
def rewritten_input(
    model: nn.Module, name: str, rewrite: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace the first input of one module by `rewrite(input)`."""

    def replace(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rewrite(args[0]), *args[1:])

    handle = model.get_submodule(name).register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipped(model: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
    """Do not run the named modules: each returns the value given for it."""
    modules = {name: model.get_submodule(name) for name in outputs}
    # An instance has its own `forward` where a library spread the model over devices.
    own = {name: module.__dict__.get("forward") for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.forward = _constant(outputs[name])
        yield
    finally:
        for name, module in modules.items():
            module.__dict__.pop("forward", None)
            if own[name] is not None:
                module.__dict__["forward"] = own[name]


@contextmanager
def raw_outputs(model: nn.Module, *names: str) -> Iterator[dict[str, Any]]:
    """Like `capture`, but each module's whole output, whatever its type: for `skipped`."""
    seen: dict[str, Any] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            seen[name] = output

        return record

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(recorder(name))
            stack.callback(handle.remove)
        yield seen


def first(output: Any) -> Tensor:
    """The hidden states of a module's output, which is a tensor or a tuple beginning with it."""
    value = output[0] if isinstance(output, tuple) else output
    assert isinstance(value, Tensor)
    return value


def _constant(value: Any) -> Callable[..., Any]:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return value

    return forward
