# SPDX-License-Identifier: Apache-2.0
"""The Triton row: where it runs, and its operators. Triton itself is imported by the first call."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from ..backends import Support
from .operators import SCHEMAS, Operators

__all__ = ["OPERATORS", "TRITON"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs its kernels on the CPU, for tests and for debugging."""

MISSING = None if find_spec("triton") else "triton is not installed (pip install triton)"

TRITON = Support(devices=("cuda", "cpu") if INTERPRETED else ("cuda",), missing=MISSING)

OPERATORS = Operators("ms_deform_attn_triton")

KERNELS = {
    "": "forward",
    "_backward": "backward",
    "_fused": "forward_fused",
    "_fused_backward": "backward_fused",
}
"""Suffix of an operator -> its function in ``triton_kernels``."""

_library: Any = torch.library.Library("rtdetr_ops", "FRAGMENT")  # type: ignore[no-untyped-call]


def _launch(function: str) -> Callable[..., Any]:
    def launch(*arguments: Any) -> Any:
        run = getattr(import_module(".triton_kernels", __package__), function)
        device = arguments[0].device
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            return run(*arguments)
        with torch.cuda.device(device):  # Triton launches on the current one
            return run(*arguments)

    return launch


def _define() -> None:
    for suffix, function in KERNELS.items():
        _library.define(f"{OPERATORS.name}{suffix}{SCHEMAS[suffix]}")
        for key in ("CUDA", "CPU") if INTERPRETED else ("CUDA",):
            _library.impl(f"{OPERATORS.name}{suffix}", _launch(function), key)
    OPERATORS.register()


if MISSING is None:
    _define()
