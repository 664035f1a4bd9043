# SPDX-License-Identifier: Apache-2.0
"""Fused multi-scale deformable attention for PyTorch."""

from ._extension import build_info, use_cpu_isa
from .backends import use_backend
from .ms_deform_attn import explain, ms_deform_attn, ms_deform_attn_fused

__all__ = [
    "build_info",
    "explain",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "use_backend",
    "use_cpu_isa",
]
