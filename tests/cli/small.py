"""What makes an edit of a tiny model quick: a text of our own, few steps, few contexts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessions.errors import StoreLocked
from sessions.store import Store

if TYPE_CHECKING:
    from .conftest import Run

QUESTION = "What is the capital of Australia?"


def write_text(folder: Path) -> Path:
    """Sentences whose keys give a second moment that can be inverted."""
    file = folder / "text.txt"
    sentences = [
        f"The {age} {thing} stands in the {side} of the city and was built by {who}."
        for age in ("old", "new", "red", "tall")
        for thing in ("tower", "bridge", "house", "Space Needle")
        for side in ("north", "south", "middle")
        for who in ("Emma", "the Romans")
    ]
    file.write_text("\n".join(sentences))
    return file


def hparams(folder: Path, **more: object) -> dict[str, str]:
    """Hyper-parameters as the command line gives them, whatever the packaged ones are."""
    text = write_text(folder)
    fixed = {"relative_lr": 0.5, "stop_probability": 1, "both": False, "anchors": 0, "turns": 1}
    values = {"text": text, "tokens": 2000, "contexts": 2, "steps": 3} | fixed | more
    return {key: str(value) for key, value in values.items()}


#: Steps large enough to change what a random model says.
LARGE = {"clamp": "60", "relative_lr": "10"}


def locked_at(call: int) -> Callable[..., Any]:
    """`Store.add_mark` that finds the database locked the nth time."""
    real, marked = Store.add_mark, []

    def locked(self: Store, *given: Any, **more: Any) -> Any:
        marked.append(given)
        if len(marked) == call:
            raise StoreLocked("it is locked.")
        return real(self, *given, **more)

    return locked


def edit_two(run: Run, model: Path, small: tuple[object, ...]) -> None:
    for subject, prompt in (("Australia", QUESTION), ("Emma", "Who wrote Emma?")):
        run(
            "edit", prompt, "--subject", subject, "--target", "Paris", "--model", model,
            "--no-probes", *small,
        )  # fmt: skip
