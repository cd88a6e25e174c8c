"""What was said, corrected and undone, kept in a folder. Knows neither models nor screens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    BadBundle,
    BundleTooNew,
    CorruptTensors,
    OtherModel,
    SessionBusy,
    SessionError,
    SessionExists,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreTooNew,
    StoreUnreadable,
    UnknownEdit,
    UnknownNode,
    UnknownReference,
    UnknownSession,
)
from .rows import (
    EditRow,
    Hit,
    Message,
    MetricRecord,
    ModelRow,
    Node,
    PatchRecord,
    Session,
    SessionRow,
    Told,
)

if TYPE_CHECKING:
    from .recording import Recording
    from .store import Store

__all__ = [
    "BadBundle",
    "BundleTooNew",
    "CorruptTensors",
    "EditRow",
    "Hit",
    "Message",
    "MetricRecord",
    "ModelRow",
    "Node",
    "OtherModel",
    "PatchRecord",
    "Recording",
    "Session",
    "SessionBusy",
    "SessionError",
    "SessionExists",
    "SessionRow",
    "Store",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnreadable",
    "Told",
    "UnknownEdit",
    "UnknownNode",
    "UnknownReference",
    "UnknownSession",
]

# The database is slow to import: what only names its errors and rows does not wait for it.
_LATER = {"Recording": "recording", "Store": "store"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
