# SPDX-License-Identifier: Apache-2.0
"""The module names under which the original CUDA extension is imported, answered by this library on request."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import Tensor

from ..ms_deform_attn.classic import classic_attention, classic_gradients

__all__ = ["install_shim", "remove_shim"]

NAME = "MultiScaleDeformableAttention"

# Name -> the shim under it, and the module that it shadows.
_installed: dict[str, tuple[ModuleType, ModuleType | None]] = {}


def install_shim(name: str = NAME, *, force: bool = False) -> ModuleType:
    """Make ``import MultiScaleDeformableAttention`` find this library instead of the compiled extension.

    For code that cannot be imported without the extension of Deformable DETR (DINO, Mask2Former, MaskDINO and other
    clones). Call it before importing that code, in every process: spawned workers do not inherit it. Calling it twice
    changes nothing.

    Args:
        name: the name under which that code imports the extension; ``"detrex._C"`` or ``"groundingdino._C"`` where it
            is part of a package.
        force: take the name even from a module of that name that is imported already. Code that imported that module
            earlier keeps it; :func:`remove_shim` brings it back.

    Returns:
        The module, with ``ms_deform_attn_forward`` and ``ms_deform_attn_backward``.

    Raises:
        TypeError, ValueError: ``name`` is not a dotted name.
        RuntimeError: another module of that name is imported, and ``force`` is false.
    """
    _check_name(name)
    present = sys.modules.get(name)
    shim, _ = _installed.get(name, (None, None))
    if shim is not None and present is shim:
        return shim
    if present is not None and not force:
        origin = getattr(present, "__file__", None) or "no file"
        raise RuntimeError(
            f"install_shim: a module named {name} is imported already (from {origin}); call install_shim before "
            "it is imported, or pass force=True to take its name"
        )
    shim = _build_shim(name)
    _installed[name] = shim, present
    _bind(name, shim)
    return shim


def remove_shim(name: str = NAME) -> bool:
    """Undo :func:`install_shim`; False when it was not installed. Code that imported the shim keeps it."""
    _check_name(name)
    shim, shadowed = _installed.get(name, (None, None))
    if shim is None or sys.modules.get(name) is not shim:
        return False
    del _installed[name]
    _bind(name, shadowed)
    return True


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name: expected the name of a module, got {name!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"name: expected a dotted name such as 'detrex._C', got {name!r}")


def _bind(name: str, module: ModuleType | None) -> None:
    """Put a module under its name, also into its package where that is imported; None takes away what is there."""
    package, _, attribute = name.rpartition(".")
    parent = sys.modules.get(package)
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module
    if parent is None:
        return
    if module is not None:
        setattr(parent, attribute, module)
    elif hasattr(parent, attribute):
        delattr(parent, attribute)


def _build_shim(name: str) -> ModuleType:
    module = ModuleType(name, "Multi-scale deformable attention by rtdetr_ops.")
    module.__spec__ = ModuleSpec(name, loader=None, origin=__name__)
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
