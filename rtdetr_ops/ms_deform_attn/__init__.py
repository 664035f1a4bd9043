# SPDX-License-Identifier: Apache-2.0
from .op import explain, ms_deform_attn, ms_deform_attn_fused

__all__ = ["explain", "ms_deform_attn", "ms_deform_attn_fused"]
