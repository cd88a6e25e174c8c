"""What may be said of precision and device, checked before a model is there.

Imports torch for a device that may be missing, and for nothing else.
"""

from __future__ import annotations

from .errors import BadSetting

DTYPES = {
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
}  # by the names that torch has


def check_dtype(name: str) -> str:
    """ "auto", or a key of DTYPES. Raises BadSetting."""
    if name != "auto" and name not in DTYPES:
        raise BadSetting(f"unknown dtype {name!r}.", "Try auto, fp32, bf16 or fp16.")
    return name


def check_device(name: str) -> str:
    """ "auto", or a device that is there. Raises BadSetting."""
    if name not in ("auto", "cpu"):
        from .hardware import choose_device

        choose_device(name)
    return name
