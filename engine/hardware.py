"""Devices, what they compute in and what they have room for."""

from __future__ import annotations

import functools
from pathlib import Path

import psutil
import torch

from . import placing
from .arch import Arch
from .errors import BadSetting, OutOfMemory
from .storage import megabytes

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, full) for name, full in placing.DTYPES.items()
}
_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, ARM
_CGROUPS = (  # limit, in use
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def choose_device(wanted: str) -> torch.device:
    """ "auto" is the first CUDA device, else the CPU. Raises BadSetting."""
    if wanted == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise BadSetting(f"unknown device {wanted!r}.", "Try cpu, cuda, cuda:1 or mps.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BadSetting(f"there is no device {wanted!r}: torch sees {count} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadSetting("there is no device 'mps'.")
    return device


def choose_dtype(wanted: str, device: torch.device, arch: Arch) -> torch.dtype:
    """ "auto" is bf16 where the device has it, else fp32. Raises BadSetting."""
    if wanted == "auto":
        return torch.bfloat16 if _native_bf16(device) else torch.float32
    placing.check_dtype(wanted)
    if DTYPES[wanted] == torch.float16 and arch.model_type == "t5":
        raise BadSetting("T5 overflows in fp16.", "Try --dtype bf16 or fp32.")
    return DTYPES[wanted]


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512-BF16, AMX, ARM BF16)."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(_NATIVE_BF16 & set(flags.partition(":")[2].split()))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: of the GPU, or of the host within its cgroup."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return free


def require_memory(
    name: str, needed: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    """Raises OutOfMemory when `needed` bytes for a model in `dtype` are not there."""
    free = free_memory(device)
    if needed > free:
        smaller = "--dtype bf16, " if dtype == torch.float32 else ""
        raise OutOfMemory(
            f"{name} needs {megabytes(needed)} on {device} as "
            f"{str(dtype).removeprefix('torch.')}; {megabytes(free)} are free.",
            f"Try {smaller}a smaller model (llm-edit models list) or another --device.",
        )
