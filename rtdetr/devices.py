# SPDX-License-Identifier: Apache-2.0
"""Devices and dtypes, from the words people use, and full float32 arithmetic."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .checking import as_int
from .errors import RTDetrError, UsageError, did_you_mean

__all__ = ["count_cores", "describe_device", "find_device", "find_dtype", "full_float32"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def find_device(device: str | int | torch.device) -> torch.device:
    """The device meant: "auto" is the first CUDA GPU, else Apple's, else the CPU; a number is that CUDA GPU.

    Raises:
        UsageError: if it is not the name of a device.
        RTDetrError: if this machine, or this build of torch, does not have it.
    """
    if isinstance(device, str) and device == "auto":
        apple = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if apple else "cpu")
    is_digits = isinstance(device, str) and device.isdecimal()
    number = int(str(device)) if is_digits else as_int(device)
    try:
        if number is None and not isinstance(device, str | torch.device):
            raise TypeError  # noqa: TRY301 -- torch takes True for a GPU
        resolved = torch.device(f"cuda:{number}" if number is not None else device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f'device: expected "auto", "cpu", "cuda", "cuda:1", 0 or "mps", got {device!r}'
        ) from error
    _check_device(resolved)
    return resolved


def find_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype meant: "auto" is float16 on CUDA, which has finer steps than bfloat16, else float32.

    Raises:
        UsageError: for anything but float32, float16, bfloat16 and "auto", or for float16 on a CPU that computes it in
            software, many times slower than float32.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    name = str(dtype).removeprefix("torch.")
    name = SHORT.get(name, name)
    if name not in DTYPES:
        raise UsageError(
            f'dtype: expected "auto", {", ".join(map(repr, DTYPES))}, got {str(dtype)!r}.'
            f"{did_you_mean(name, DTYPES)}"
        )
    if name == "float16" and device.type == "cpu" and not _has_float16():
        raise UsageError(
            "dtype: float16 is many times slower than float32 on this CPU, which has no arithmetic for it. Use "
            "bfloat16 or float32."
        )
    return DTYPES[name]


def count_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device(device: torch.device) -> str:
    """``cuda:0 (NVIDIA H100)``, ``cpu (8 threads)``."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' * (threads != 1)})" if device.type == "cpu" else str(device)


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside the ``with`` block no convolution and no matrix product rounds float32 inputs to TF32.

    torch lets convolutions do so by default: three digits remain, which is enough to detect and too few to compare.
    """
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _has_float16() -> bool:
    """Whether the CPU multiplies float16 matrices by itself; of x86 alone it is known which do not."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def _check_device(device: torch.device) -> None:
    if device.type not in ("cpu", "cuda", "mps"):
        _check_other_device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        why = "has no CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
        raise RTDetrError(
            f"device {device}: this torch ({torch.__version__}) {why}. Use device cpu, or install torch with CUDA: "
            "https://pytorch.org/get-started"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RTDetrError(f"device {device}: there are {torch.cuda.device_count()} CUDA GPUs here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RTDetrError(
            f"device {device}: this machine, or this torch, has no MPS. Use device cpu."
        )


def _check_other_device(device: torch.device) -> None:
    """Devices that torch knows and nobody tried here: taken where torch says that it can use them."""
    module = getattr(torch, device.type, None)
    if module is None or not hasattr(module, "is_available"):
        raise UsageError(
            f'device: {device} computes nothing. Expected "auto", "cpu", "cuda", "cuda:1", 0 or "mps".'
        )
    if not module.is_available():
        raise RTDetrError(
            f"device {device}: this machine, or this torch, has none. Use device cpu."
        )
