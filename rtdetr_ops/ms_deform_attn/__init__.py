# SPDX-License-Identifier: Apache-2.0
"""Multi-scale deformable attention: the operator, its layer and its autograd functions."""

from .export_form import export_form
from .function import FusedMSDeformAttnFunction, MSDeformAttnFunction
from .module import MSDeformAttn
from .op import explain, ms_deform_attn, ms_deform_attn_fused

__all__ = [
    "FusedMSDeformAttnFunction",
    "MSDeformAttn",
    "MSDeformAttnFunction",
    "explain",
    "export_form",
    "ms_deform_attn",
    "ms_deform_attn_fused",
]
