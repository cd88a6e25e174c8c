"""Manners of the model library: its bars, its remarks and its errors."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import LLMEditError, ModelUnavailable, OutOfMemory, no_memory
from .progress import Bar, Progress, only_logging
from .storage import disk_full, no_room

log = logging.getLogger(__name__)


@contextmanager
def counted_bars(progress: Progress) -> Iterator[None]:
    """Counts the library's progress bars instead of drawing them."""
    from transformers.utils import logging as library

    def bar(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bar:
        return Bar(progress, args[0] if args else kwargs.get("iterable"), kwargs.get("total"))

    previous = library.set_tqdm_hook(bar)
    try:
        yield
    finally:
        library.set_tqdm_hook(previous)


@contextmanager
def in_words(place: Path) -> Iterator[None]:
    """What the library raises about a model folder or file, as our errors.

    Raises OutOfMemory, NoSpace, ModelUnavailable.
    """
    try:
        yield
    except LLMEditError:
        raise
    except Exception as error:  # whatever the library makes of a damaged or unknown file
        if no_memory(error):
            raise OutOfMemory(
                f"{place} does not fit into memory.",
                "Try a smaller model, --dtype bf16, or another --device.",
            ) from error
        if disk_full(error):
            raise no_room(place, "No space left on device") from error
        log.info("loading %s", place, exc_info=True)
        words = " ".join(str(error).split()) or type(error).__name__
        raise ModelUnavailable(
            f"{place} cannot be loaded: {textwrap.shorten(words, 300)}"
        ) from error


def quiet() -> None:
    """The libraries' remarks go to logging, not to the terminal under a running screen."""
    from transformers.utils import logging as library

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    library.get_logger("transformers")  # installs its handler, which is then replaced
    for name in ("transformers", "huggingface_hub"):
        only_logging(name)
