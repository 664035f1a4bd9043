# SPDX-License-Identifier: Apache-2.0
"""The module name under which the original CUDA extension is imported, answered by this library on explicit request."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import Tensor

from ..ms_deform_attn.classic import classic_attention, classic_gradients

__all__ = ["install_shim", "remove_shim"]

NAME = "MultiScaleDeformableAttention"

_shim: ModuleType | None = None
_shadowed: ModuleType | None = None


def install_shim(*, force: bool = False) -> ModuleType:
    """Make ``import MultiScaleDeformableAttention`` find this library instead of the compiled extension.

    For code that cannot be imported without the extension of Deformable DETR (DINO, Mask2Former, MaskDINO and other
    clones). Call it before importing that code. Calling it twice changes nothing.

    Args:
        force: take the name even from a module of that name that is imported already. Code that imported that module
            earlier keeps it; :func:`remove_shim` brings it back.

    Returns:
        The module, with ``ms_deform_attn_forward`` and ``ms_deform_attn_backward``.

    Raises:
        RuntimeError: another module of that name is imported, and ``force`` is false.
    """
    global _shim, _shadowed
    present = sys.modules.get(NAME)
    if present is not None and present is _shim:
        return present
    if present is not None and not force:
        origin = getattr(present, "__file__", None) or "no file"
        raise RuntimeError(
            f"install_shim: a module named {NAME} is imported already (from {origin}); call install_shim before "
            "it is imported, or pass force=True to take its name"
        )
    _shim, _shadowed = _build_shim(), present
    sys.modules[NAME] = _shim
    return _shim


def remove_shim() -> bool:
    """Undo :func:`install_shim`; False when it was not installed. Code that imported the shim keeps it."""
    global _shim, _shadowed
    if _shim is None or sys.modules.get(NAME) is not _shim:
        return False
    del sys.modules[NAME]
    if _shadowed is not None:
        sys.modules[NAME] = _shadowed
    _shim = _shadowed = None
    return True


def _build_shim() -> ModuleType:
    module = ModuleType(NAME, "Multi-scale deformable attention by rtdetr_ops.")
    module.__spec__ = ModuleSpec(NAME, loader=None, origin=__name__)
    module.ms_deform_attn_forward = ms_deform_attn_forward  # type: ignore[attr-defined]
    module.ms_deform_attn_backward = ms_deform_attn_backward  # type: ignore[attr-defined]
    return module


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    """The extension's forward: :func:`~rtdetr_ops.ms_deform_attn.classic.classic_attention` under its argument names.

    Without a gradient: the caller's ``autograd.Function`` supplies that.
    """
    with torch.no_grad():
        return classic_attention(
            value, spatial_shapes, level_start_index, sampling_loc, attn_weight, im2col_step
        )


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    grad_output: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The extension's backward: :func:`~rtdetr_ops.ms_deform_attn.classic.classic_gradients` under its names."""
    return classic_gradients(
        value,
        spatial_shapes,
        level_start_index,
        sampling_loc,
        attn_weight,
        grad_output,
        im2col_step,
    )
