# SPDX-License-Identifier: Apache-2.0
"""The compiled operators: their fake kernels, their gradients and the rows that run them.

The schemas live in csrc/ms_deform_attn/op.cpp. ``levels`` is flat there: [H_0, W_0, H_1, W_1, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._extension import MISSING
from ..backends import Support
from ..levels import Levels, host_levels

__all__ = ["CPU", "run", "run_fused"]

CPU = Support(devices=("cpu",), missing=MISSING)

_ops = torch.ops.rtdetr_ops


def run(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
    mode: str,
) -> Tensor:  # [B, Q, M*D]
    arguments = (value, _flat(levels), locations, weights, points, mode == "discrete")
    if _is_differentiated(value, locations, weights):
        return _ops.ms_deform_attn(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return _ops.ms_deform_attn(*arguments)


def run_fused(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    logits: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
    mode: str,
    offset_scale: float,
    value_mask: Tensor | None,  # [B, S], True keeps
) -> Tensor:  # [B, Q, M*D]
    arguments = (
        value,
        _flat(levels),
        reference,
        offsets,
        logits,
        points,
        mode == "discrete",
        offset_scale,
        value_mask,
    )
    if _is_differentiated(value, reference, offsets, logits):
        return _ops.ms_deform_attn_fused(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return _ops.ms_deform_attn_fused(*arguments)


def _is_differentiated(*tensors: Tensor) -> bool:
    """Whether the call must pass through autograd.

    Where it need not, entering below autograd saves the Python half of the registered gradient formula, a third of what
    a call on tiny inputs costs. Compilers and forward-mode differentiation always take the full way.
    """
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _flat(levels: Levels) -> list[int]:
    return [side for size in host_levels(levels) for side in size]


def _fake_forward(value: Tensor, levels: list[int], pairs: Tensor, *_: Any) -> Tensor:
    return value.new_empty(pairs.shape[0], pairs.shape[1], value.shape[2] * value.shape[3])


def _fake_fused_forward(
    value: Tensor, levels: list[int], reference: Tensor, offsets: Tensor, *_: Any
) -> Tensor:
    return _fake_forward(value, levels, offsets)


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
    locations: Tensor,
    weights: Tensor,
    points: list[int],
    discrete: bool,
    *needs: bool,
) -> tuple[Tensor, ...]:
    return _fake_gradients((value, locations, weights), needs)


def _fake_fused_backward(
    grad_output: Tensor,
    value: Tensor,
    levels: list[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: list[int],
    discrete: bool,
    offset_scale: float,
    value_mask: Tensor | None,
    *needs: bool,
) -> tuple[Tensor, ...]:
    return _fake_gradients((value, reference, offsets, logits), needs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, locations, weights, ctx.points, ctx.discrete = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    value, locations, weights = ctx.saved_tensors
    needs_value, _, needs_locations, needs_weights, _, _ = ctx.needs_input_grad
    needs = (needs_value, needs_locations and not ctx.discrete, needs_weights)
    grads = _ops.ms_deform_attn_backward(
        grad_output, value, ctx.levels, locations, weights, ctx.points, ctx.discrete, *needs
    )
    grad_value, grad_locations, grad_weights = _needed(grads, needs)
    return grad_value, None, grad_locations, grad_weights, None, None


def _save_fused(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, reference, offsets, logits, ctx.points = inputs[:6]
    ctx.discrete, ctx.offset_scale, value_mask = inputs[6:]
    ctx.save_for_backward(value, reference, offsets, logits, value_mask)


def _backward_fused(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    value, reference, offsets, logits, value_mask = ctx.saved_tensors
    needs_value, _, needs_reference, needs_offsets, needs_logits = ctx.needs_input_grad[:5]
    moves = not ctx.discrete
    needs = (needs_value, needs_reference and moves, needs_offsets and moves, needs_logits)
    grads = _ops.ms_deform_attn_fused_backward(
        grad_output,
        value,
        ctx.levels,
        reference,
        offsets,
        logits,
        ctx.points,
        ctx.discrete,
        ctx.offset_scale,
        value_mask,
        *needs,
    )
    grad_value, grad_reference, grad_offsets, grad_logits = _needed(grads, needs)
    return grad_value, None, grad_reference, grad_offsets, grad_logits, None, None, None, None


def _needed(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    return [grad if needed else None for grad, needed in zip(grads, needs, strict=True)]


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise NotImplementedError(
        "ms_deform_attn: the compiled backends are differentiable once; use backend='reference' for higher derivatives"
    )


def _register() -> None:
    for name, fake, save, backward in (
        ("ms_deform_attn", _fake_forward, _save, _backward),
        ("ms_deform_attn_fused", _fake_fused_forward, _save_fused, _backward_fused),
        ("ms_deform_attn_backward", _fake_backward, None, _refuse_double_backward),
        ("ms_deform_attn_fused_backward", _fake_fused_backward, None, _refuse_double_backward),
    ):
        torch.library.register_fake(f"rtdetr_ops::{name}", fake)
        torch.library.register_autograd(f"rtdetr_ops::{name}", backward, setup_context=save)


if MISSING is None:
    _register()
