# SPDX-License-Identifier: Apache-2.0
from .function import FusedMSDeformAttnFunction, MSDeformAttnFunction
from .module import MSDeformAttn
from .op import explain, ms_deform_attn, ms_deform_attn_fused
from .portable import export_form

__all__ = [
    "FusedMSDeformAttnFunction",
    "MSDeformAttn",
    "MSDeformAttnFunction",
    "explain",
    "export_form",
    "ms_deform_attn",
    "ms_deform_attn_fused",
]
