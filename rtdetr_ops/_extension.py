# SPDX-License-Identifier: Apache-2.0
"""The compiled library: loaded once, on import, when this installation has it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch  # its libraries must be in the process before ours looks for them

__all__ = ["CUDA_MISSING", "MISSING", "build_info", "use_cpu_isa"]

MISSING = (
    None
    if find_spec(f"{__package__}._C")
    else "the compiled library is not in this installation (pip install . builds it)"
)

if MISSING is None:
    _C: Any = import_module(f"{__package__}._C")  # registers torch.ops.rtdetr_ops


def _cuda_missing() -> str | None:
    if MISSING is not None:
        return MISSING
    if torch.version.hip is not None:
        return "this torch is built for ROCm, and the CUDA kernels run on NVIDIA devices"
    status = _C.build_info()["cuda"]
    return f"CUDA is {status}" if status.startswith("not built") else None


CUDA_MISSING = _cuda_missing()


def build_info() -> dict[str, Any]:
    """What the compiled library was built with (version, torch, compiler, cuda) and the CPU instruction set in use.

    Paste it into a bug report.
    """
    if MISSING is not None:
        return {"compiled": False, "reason": MISSING}
    return {"compiled": True, **_C.build_info()}


def use_cpu_isa(name: str | None) -> None:
    """Run the CPU kernels of one instruction set: ``"baseline"``, ``"avx2"`` or ``"avx512"``; None for the widest.

    For tests and for comparing machines.

    Raises:
        ValueError: this build or processor does not have it.
        RuntimeError: there is no compiled library.
    """
    if MISSING is not None:
        raise RuntimeError(MISSING)
    _C.use_cpu_isa(name)
