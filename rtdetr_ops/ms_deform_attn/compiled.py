# SPDX-License-Identifier: Apache-2.0
"""The compiled operators: torch dispatches each to the kernels of the device of its tensors, each a backend."""

from __future__ import annotations

from .._extension import CUDA_MISSING, MISSING
from ..backends import Support
from . import autograd
from .operators import Operators

__all__ = ["CPU", "CUDA", "OPERATORS"]

CPU = Support(devices=("cpu",), missing=MISSING)
CUDA = Support(devices=("cuda",), missing=CUDA_MISSING, capability=(8, 0))

OPERATORS = Operators("ms_deform_attn")

if MISSING is None:
    autograd.register(OPERATORS)
