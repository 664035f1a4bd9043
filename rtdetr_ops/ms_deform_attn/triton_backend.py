# SPDX-License-Identifier: Apache-2.0
"""The Triton backend: where it runs, and its operators."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from .. import environment
from ..backends import Support
from . import autograd, triton_launch
from .operators import SCHEMAS, Operators

__all__ = ["OPERATORS", "TRITON"]

DEVICES = ("cuda", "cpu") if environment.TRITON_INTERPRETED else ("cuda",)

MISSING = None if find_spec("triton") else "triton is not installed (pip install triton)"

TRITON = Support(devices=DEVICES, missing=MISSING)

OPERATORS = Operators("ms_deform_attn_triton")

LAUNCHES = {
    "": triton_launch.forward,
    "_backward": triton_launch.backward,
    "_fused": triton_launch.forward_fused,
    "_fused_backward": triton_launch.backward_fused,
}
"""Suffix of an operator -> its body."""

_library: Any = torch.library.Library("rtdetr_ops", "FRAGMENT")  # type: ignore[no-untyped-call]


def _define() -> None:
    for suffix, launch in LAUNCHES.items():
        _library.define(f"{OPERATORS.name}{suffix}{SCHEMAS[suffix]}")
        for device in DEVICES:
            _library.impl(f"{OPERATORS.name}{suffix}", launch, device.upper())
    autograd.register(OPERATORS)


if MISSING is None:
    _define()
