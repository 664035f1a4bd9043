# SPDX-License-Identifier: Apache-2.0
"""Fused multi-scale deformable attention for PyTorch."""

from .backends import use_backend
from .ms_deform_attn import explain, ms_deform_attn, ms_deform_attn_fused

__all__ = ["explain", "ms_deform_attn", "ms_deform_attn_fused", "use_backend"]
