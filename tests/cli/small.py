"""What makes an edit of a tiny model quick: a text of our own, few steps, few contexts."""

from __future__ import annotations

from pathlib import Path

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
