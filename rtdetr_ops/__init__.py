# SPDX-License-Identifier: Apache-2.0
"""Fused multi-scale deformable attention for PyTorch."""

from ._extension import build_info, use_cpu_isa
from .backends import use_backend
from .ms_deform_attn import (
    FusedMSDeformAttnFunction,
    MSDeformAttn,
    MSDeformAttnFunction,
    explain,
    export_form,
    ms_deform_attn,
    ms_deform_attn_fused,
)
from .patching import PatchReport, install_shim, patch, remove_shim, unpatch

__all__ = [
    "FusedMSDeformAttnFunction",
    "MSDeformAttn",
    "MSDeformAttnFunction",
    "PatchReport",
    "__version__",
    "build_info",
    "explain",
    "export_form",
    "install_shim",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "patch",
    "remove_shim",
    "unpatch",
    "use_backend",
    "use_cpu_isa",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("rtdetr-ops")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
