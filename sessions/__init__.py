"""What was said, corrected and undone, kept in a folder. Knows neither models nor screens."""

from __future__ import annotations

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
from .recording import Recording
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
