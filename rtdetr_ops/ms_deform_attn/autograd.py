# SPDX-License-Identifier: Apache-2.0
"""What torch must know of the registered operators of a backend: their fake kernels and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..levels import Levels
from .operators import Operators, check_devices

__all__ = ["register"]


_MODES = {False: "bilinear", True: "discrete"}


def register(operators: Operators) -> None:
    """Give the four operators their fake kernels and gradients; they must have been defined."""
    for suffix, fake, save, backward in (
        ("", _fake_forward, _save, _differentiate(operators)),
        ("_fused", _fake_fused_forward, _save_fused, _differentiate_fused(operators)),
        ("_backward", _fake_backward, None, _refuse_double_backward),
        ("_fused_backward", _fake_fused_backward, None, _refuse_double_backward),
    ):
        name = f"rtdetr_ops::{operators.name}{suffix}"
        torch.library.register_fake(name, fake)
        torch.library.register_autograd(name, backward, setup_context=save)


def _differentiate(operators: Operators) -> Callable[..., tuple[Any, ...]]:
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        *inputs, level_sizes = ctx.saved_tensors
        needs_value, _, _, needs_locations, needs_weights, _, _ = ctx.needs_input_grad
        grad_value, grad_locations, grad_weights = operators.gradients(
            grad_output,
            inputs,
            _levels(ctx, level_sizes),
            ctx.points,
            ctx.mode,
            (needs_value, needs_locations, needs_weights),
        )
        return grad_value, None, None, grad_locations, grad_weights, None, None

    return backward


def _differentiate_fused(operators: Operators) -> Callable[..., tuple[Any, ...]]:
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        *inputs, level_sizes, value_mask = ctx.saved_tensors
        needs_value, _, _, *needs = ctx.needs_input_grad[:6]
        grad_value, *grads = operators.gradients_fused(
            grad_output,
            inputs,
            _levels(ctx, level_sizes),
            ctx.points,
            ctx.mode,
            ctx.offset_scale,
            value_mask,
            (needs_value, *needs),
        )
        return grad_value, None, None, *grads, None, None, None, None

    return backward


def _levels(ctx: Any, level_sizes: Tensor | None) -> Levels:
    """The pyramid of a call, from the two arguments of its operator."""
    if level_sizes is not None:
        return level_sizes
    return tuple(zip(ctx.levels[::2], ctx.levels[1::2], strict=True))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, level_sizes, locations, weights, ctx.points, discrete = inputs
    ctx.mode = _MODES[discrete]
    ctx.save_for_backward(value, locations, weights, level_sizes)


def _save_fused(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, level_sizes, reference, offsets, logits, ctx.points = inputs[:7]
    discrete, ctx.offset_scale, value_mask = inputs[7:]
    ctx.mode = _MODES[discrete]
    ctx.save_for_backward(value, reference, offsets, logits, level_sizes, value_mask)


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise NotImplementedError(
        "ms_deform_attn: the compiled backends are differentiable once; use backend='reference' for higher derivatives"
    )


def _fake_forward(
    value: Tensor,
    levels: list[int],
    level_sizes: Tensor | None,
    locations: Tensor,
    weights: Tensor,
    *_: Any,
) -> Tensor:
    check_devices(value, {"levels": level_sizes, "locations": locations, "weights": weights})
    return _fake_output(value, "locations", locations)


def _fake_fused_forward(
    value: Tensor,
    levels: list[int],
    level_sizes: Tensor | None,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: list[int],
    discrete: bool,
    offset_scale: float,
    value_mask: Tensor | None,
) -> Tensor:
    others = {"levels": level_sizes, "reference": reference, "offsets": offsets, "logits": logits}
    check_devices(value, {**others, "value_mask": value_mask})
    return _fake_output(value, "offsets", offsets)


def _fake_output(value: Tensor, name: str, points_xy: Tensor) -> Tensor:
    if value.dim() != 4:
        raise RuntimeError(f"value: expected shape [B, S, M, D], got {list(value.shape)}")
    if points_xy.dim() != 5:
        raise RuntimeError(f"{name}: expected shape [B, Q, M, T, 2], got {list(points_xy.shape)}")
    return value.new_empty(points_xy.shape[0], points_xy.shape[1], value.shape[2] * value.shape[3])


def _fake_gradients(inputs: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor, ...]:
    """Contiguous gradients; one without elements, of the dtype of ``value``, where nobody needs it."""
    none = inputs[0].new_empty(0)
    return tuple(
        tensor.new_empty(tensor.shape) if needed else none
        for tensor, needed in zip(inputs, needs, strict=True)
    )


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    levels: list[int],
    level_sizes: Tensor | None,
    locations: Tensor,
    weights: Tensor,
    points: list[int],
    discrete: bool,
    deterministic: bool,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _fake_forward(value, levels, level_sizes, locations, weights)
    check_devices(value, {"grad_output": grad_output})
    return _fake_gradients((value, locations, weights), needs)


def _fake_fused_backward(
    grad_output: Tensor,
    value: Tensor,
    levels: list[int],
    level_sizes: Tensor | None,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: list[int],
    discrete: bool,
    offset_scale: float,
    value_mask: Tensor | None,
    deterministic: bool,
    *needs: bool,
) -> tuple[Tensor, ...]:
    geometry = (points, discrete, offset_scale, value_mask)
    _fake_fused_forward(value, levels, level_sizes, reference, offsets, logits, *geometry)
    check_devices(value, {"grad_output": grad_output})
    return _fake_gradients((value, reference, offsets, logits), needs)
