# SPDX-License-Identifier: Apache-2.0
"""The operator as ``torch.autograd.Function``, for code that calls ``.apply`` and for the classic argument list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import select
from ..levels import Levels
from . import portable
from .checks import check_fused_inputs, check_inputs, expand_reference, flatten_points
from .classic import is_classic, read_classic
from .export_form import is_exporting, should_lower
from .op import BACKENDS, ms_deform_attn, ms_deform_attn_fused

__all__ = ["FusedMSDeformAttnFunction", "MSDeformAttnFunction"]


class MSDeformAttnFunction(torch.autograd.Function):
    """:func:`rtdetr_ops.ms_deform_attn` as a Function, under two argument lists of six.

    ``apply(value, levels, locations, weights, points, mode)`` is that of the public function.
    ``apply(value, spatial_shapes, level_start_index, locations, weights, im2col_step)`` is that of Deformable DETR: any
    ``im2col_step`` goes with any batch size, and it is not read.

    Differentiable in ``value``, ``locations`` and ``weights``, once by the compiled backends.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`rtdetr_ops.ms_deform_attn`.
        ValueError: host-side start indices do not follow from the shapes.
    """

    @classmethod
    def apply(cls, *arguments: Any, **keywords: Any) -> Any:
        """Run it; in a graph being exported as the public function, for a trace cannot see into a Function."""
        if not is_exporting():
            return super().apply(*arguments, **keywords)  # type: ignore[no-untyped-call]
        return _run_plain(*arguments, **keywords)

    @staticmethod
    def forward(ctx: Any, value: Tensor, levels: Levels, *arguments: Any) -> Tensor:
        locations, weights, points, mode = _read(levels, arguments)
        ctx.classic = is_classic(arguments)
        inputs = value, locations, weights
        levels, locations, weights, counts = check_inputs(
            value, levels, locations, weights, points, mode
        )
        # What is made of the inputs here is cut off from them, and a derivative of the gradient would end there.
        ctx.save_for_backward(*inputs)
        implementation = select(BACKENDS, None, value).implementation
        ctx.call = implementation, levels, counts, mode
        # torch.compile and strict torch.export look at ``forward``, never at ``apply``.
        run = portable.run if should_lower() else implementation.run
        return run(value, levels, locations, weights, counts, mode)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        implementation, levels, counts, mode = ctx.call
        value, locations, weights = ctx.saved_tensors
        needs_value, _, *needs = ctx.needs_input_grad
        needs_locations, needs_weights = needs[1:3] if ctx.classic else needs[:2]
        grad_value, grad_locations, grad_weights = implementation.gradients(
            grad_output,
            (value, *flatten_points(locations, weights)),
            levels,
            counts,
            mode,
            (needs_value, needs_locations, needs_weights),
        )
        grads = _like(grad_locations, locations), _like(grad_weights, weights)
        if ctx.classic:
            return grad_value, None, None, *grads, None
        return grad_value, None, *grads, None, None


class FusedMSDeformAttnFunction(torch.autograd.Function):
    """:func:`rtdetr_ops.ms_deform_attn_fused` as a Function.

    ``apply(value, levels, reference, offsets, logits, points, mode, offset_scale, value_mask)``. Differentiable in
    ``value``, ``reference``, ``offsets`` and ``logits``, once by the compiled backends.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`rtdetr_ops.ms_deform_attn_fused`.
    """

    @classmethod
    def apply(cls, *arguments: Any, **keywords: Any) -> Any:
        """As :meth:`MSDeformAttnFunction.apply`."""
        if not is_exporting():
            return super().apply(*arguments, **keywords)  # type: ignore[no-untyped-call]
        return _run_fused(*arguments, **keywords)

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        levels: Levels,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        points: int | Sequence[int] | None = None,
        mode: str = "bilinear",
        offset_scale: float = 0.5,
        value_mask: Tensor | None = None,
    ) -> Tensor:
        inputs = value, reference, offsets, logits, value_mask
        levels, reference, offsets, logits, counts, value_mask = check_fused_inputs(
            value, levels, reference, offsets, logits, points, mode, offset_scale, value_mask
        )
        ctx.save_for_backward(*inputs)
        offset_scale = float(offset_scale)
        implementation = select(BACKENDS, None, value).implementation
        ctx.call = implementation, levels, counts, mode, offset_scale
        run_fused = portable.run_fused if should_lower() else implementation.run_fused
        return run_fused(
            value, levels, reference, offsets, logits, counts, mode, offset_scale, value_mask
        )

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        implementation, levels, counts, mode, offset_scale = ctx.call
        value, reference, offsets, logits, value_mask = ctx.saved_tensors
        needs_value, _, *needs = ctx.needs_input_grad[:5]
        grad_value, grad_reference, grad_offsets, grad_logits = implementation.gradients_fused(
            grad_output,
            (value, expand_reference(reference, offsets), *flatten_points(offsets, logits)),
            levels,
            counts,
            mode,
            offset_scale,
            None if value_mask is None else value_mask.expand(value.shape[:2]),
            (needs_value, *needs),
        )
        if grad_reference is not None:
            grad_reference = grad_reference.sum_to_size(reference.shape)
        grads = grad_reference, _like(grad_offsets, offsets), _like(grad_logits, logits)
        return grad_value, None, *grads, None, None, None, None


def _run_plain(value: Tensor, levels: Levels, *arguments: Any) -> Tensor:
    locations, weights, points, mode = _read(levels, arguments)
    return ms_deform_attn(value, levels, locations, weights, points=points, mode=mode)


def _run_fused(*arguments: Any) -> Tensor:
    options = ("points", "mode", "offset_scale", "value_mask")
    return ms_deform_attn_fused(*arguments[:5], **dict(zip(options, arguments[5:], strict=False)))


def _read(levels: Levels, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor, Any, str]:
    """Locations, weights, points and mode of either argument list."""
    _check_count(arguments)
    return read_classic(levels, *arguments) if is_classic(arguments) else arguments


def _check_count(arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 4:
        raise TypeError(
            "MSDeformAttnFunction.apply: expected 6 arguments, (value, levels, locations, weights, points, mode) or "
            "(value, spatial_shapes, level_start_index, locations, weights, im2col_step), "
            f"got {len(arguments) + 2}"
        )


def _like(grad: Tensor | None, given: Tensor) -> Tensor | None:
    return None if grad is None else grad.view(given.shape)
