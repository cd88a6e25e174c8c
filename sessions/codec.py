"""Plain values to text and back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any


def now() -> str:
    """UTC, ISO 8601 with microseconds and fixed width, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """The text without lone surrogates (undecodable input), which SQLite cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def dumps(value: Any) -> str:
    """JSON. NaN and infinities become {"float": "nan"}, as in the engine's events."""
    return clean(json.dumps(_encode(value), ensure_ascii=False, allow_nan=False))


def loads(text: str) -> Any:
    """What `dumps` wrote; tuples come back as lists."""
    return json.loads(text, object_hook=_float)


def number(value: float | None) -> float:
    """A measurement from a column: SQLite keeps NaN as NULL."""
    return math.nan if value is None else value


_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _float(found: dict[str, Any]) -> Any:
    if len(found) == 1 and isinstance(text := found.get("float"), str):
        return _NOT_FINITE.get(text, found)
    return found
