"""What was said, corrected and undone, kept in a folder. Knows neither models nor screens."""

from __future__ import annotations

from .errors import (
    CorruptTensors,
    SessionError,
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
from .recording import Recording, Told
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
)
from .store import Store

__all__ = [
    "CorruptTensors",
    "EditRow",
    "Hit",
    "Message",
    "MetricRecord",
    "ModelRow",
    "Node",
    "PatchRecord",
    "Recording",
    "Session",
    "SessionError",
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
