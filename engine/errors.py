"""What can go wrong, in words.

LLMEditError                 exit code 1: the work failed
├── EditFailed               the method ran and gave nothing usable
│   ├── DivergedLoss         the loss became NaN or infinite, or rose
│   └── SingularCovariance   the key statistics cannot be inverted
├── BadInput                 exit code 2: usage or configuration
│   ├── UnknownName          no such model, method, edit ... (says what is near)
│   ├── BadRequest           an edit request that cannot be carried out
│   │   ├── AlreadySaid      the model answers as wanted without an edit
│   │   ├── SubjectNotFound
│   │   └── SubjectAmbiguous
│   ├── BadFile              a line of a file (file and line named)
│   ├── BadSetting           a hyper-parameter or configuration key
│   ├── NotExportable        what the chosen format cannot hold
│   └── UnsupportedModel     an architecture without an entry in engine/arch.py
└── MissingResource          exit code 3
    ├── ModelUnavailable
    ├── AssetUnavailable
    ├── NoSpace              disk
    └── OutOfMemory          host or accelerator
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

LISTED = 20  # names that a message lists


class LLMEditError(Exception):
    """An error with a message for a person and, where there is one, a remedy."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class EditFailed(LLMEditError):
    """The method ran and gave nothing that can be applied."""


class DivergedLoss(EditFailed):
    """The loss became NaN or infinite, or rose from where it began."""


class SingularCovariance(EditFailed):
    """The second moment of the keys cannot be inverted."""


class BadInput(LLMEditError):
    """Usage or configuration."""

    exit_code = 2


class UnknownName(BadInput):
    """`kind` has no member `name`; the message names near misses and what exists.

    more  what else to try, where not all that exists is listed
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], more: str = "") -> None:
        names = sorted(known)
        hint = meant(name, names)
        left = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        listing = f"Available: {', '.join(names[:LISTED])}{left}." if names else ""
        super().__init__(f"unknown {kind} {name!r}.", " ".join(filter(None, (hint, listing, more))))


def unreadable(error: OSError | EOFError | UnicodeDecodeError) -> str:
    """Why a file could not be read, as the end of a sentence about it."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text."
    if isinstance(error, FileNotFoundError):
        return "there is no such file."
    return f"cannot be read ({getattr(error, 'strerror', None) or error})."


def meant(name: str, known: Iterable[str]) -> str:
    """A question about the nearest of what there is; "" where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


class BadRequest(BadInput):
    """An edit request that cannot be carried out as it stands."""


class AlreadySaid(BadRequest):
    """The model answers as wanted already: there is nothing to edit."""


class SubjectNotFound(BadRequest):
    """The subject does not occur in the prompt."""


class SubjectAmbiguous(BadRequest):
    """The subject occurs more than once, or several spans are equally likely."""


class BadFile(BadInput):
    """A file, at a line where one is known, does not say what it should."""

    def __init__(self, path: Path | str, line: int | None, message: str) -> None:
        place = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{place}: {message}")


class BadSetting(BadInput):
    """A hyper-parameter or configuration key is unknown, missing or mistyped."""


class NotExportable(BadInput):
    """An edit or a model that the chosen format cannot hold."""


class UnsupportedModel(BadInput):
    """No entry in engine/arch.py for this model type."""


class MissingResource(LLMEditError):
    """A model, a file, disk or memory is not there."""

    exit_code = 3


class ModelUnavailable(MissingResource):
    """The model can be found nowhere that can be reached."""


class AssetUnavailable(MissingResource):
    """A pinned download failed, or did not match its checksum."""


class NoSpace(MissingResource):
    """The disk is full."""


class OutOfMemory(MissingResource):
    """The model or the edit does not fit."""


_NO_MEMORY = (  # said by torch in a plain RuntimeError: on the CPU (Linux, Windows), by MPS
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory: you tried to allocate",
    "MPS backend out of memory",
)


def no_memory(error: BaseException) -> bool:
    """Whether memory ran out. Torch's errors are known by their names and words: this module
    does not import it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
