# SPDX-License-Identifier: Apache-2.0
"""What surrounds a registered implementation: its fake kernels, its gradients and the functions of its row.

An implementation is four operators, ``<name>``, ``<name>_backward``, ``<name>_fused`` and ``<name>_fused_backward``,
with the schemas of csrc/ms_deform_attn/op.cpp. The pyramid is two arguments there: ``levels``, flat, [H_0, W_0, H_1,
...], and ``level_sizes``, a tensor [L, 2] beside ``value`` that counts where it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..levels import Levels, host_levels

__all__ = ["SCHEMAS", "Operators"]

Pyramid: TypeAlias = tuple[Sequence[int], Tensor | None]
"""``levels`` and ``level_sizes`` of the operators."""


_PYRAMID = "SymInt[] levels, Tensor? level_sizes"
_PLAIN = f"Tensor value, {_PYRAMID}, Tensor locations, Tensor weights, int[] points, bool discrete"
_FUSED = (
    f"Tensor value, {_PYRAMID}, Tensor reference, Tensor offsets, Tensor logits, int[] points, bool discrete, "
    "float offset_scale, Tensor? value_mask"
)

SCHEMAS = {
    "": f"({_PLAIN}) -> Tensor",
    "_backward": f"(Tensor grad_output, {_PLAIN}, bool deterministic, bool needs_value, bool needs_locations, "
    "bool needs_weights) -> (Tensor, Tensor, Tensor)",
    "_fused": f"({_FUSED}) -> Tensor",
    "_fused_backward": f"(Tensor grad_output, {_FUSED}, bool deterministic, bool needs_value, bool needs_reference, "
    "bool needs_offsets, bool needs_logits) -> (Tensor, Tensor, Tensor, Tensor)",
}
"""By suffix, as csrc/ms_deform_attn/op.cpp has them too."""


class Operators:
    """One implementation, by the name of its first operator in ``torch.ops.rtdetr_ops``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def register(self) -> None:
        """Fake kernels and gradients; the operators must have been defined."""
        for suffix, fake, save, backward in (
            ("", _fake_forward, _save, self._differentiate),
            ("_fused", _fake_fused_forward, _save_fused, self._differentiate_fused),
            ("_backward", _fake_backward, None, _refuse_double_backward),
            ("_fused_backward", _fake_fused_backward, None, _refuse_double_backward),
        ):
            name = f"rtdetr_ops::{self.name}{suffix}"
            torch.library.register_fake(name, fake)
            torch.library.register_autograd(name, backward, setup_context=save)

    def run(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Levels,  # L pairs (H, W)
        locations: Tensor,  # [B, Q, M, T, 2]
        weights: Tensor,  # [B, Q, M, T]
        points: Sequence[int],  # L counts, sum T
        mode: str,
    ) -> Tensor:  # [B, Q, M*D]
        discrete = mode == "discrete"
        arguments = (value, *_pyramid(levels, value), locations, weights, points, discrete)
        return _call(self._operator(""), arguments, (value, locations, weights))

    def run_fused(
        self,
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
            *_pyramid(levels, value),
            reference,
            offsets,
            logits,
            points,
            mode == "discrete",
            offset_scale,
            value_mask,
        )
        return _call(self._operator("_fused"), arguments, (value, reference, offsets, logits))

    def gradients(
        self,
        grad_output: Tensor,  # [B, Q, M*D]
        inputs: Sequence[Tensor],  # value, locations, weights
        levels: Levels,  # L pairs (H, W)
        points: Sequence[int],  # L counts, sum T
        mode: str,
        needs: Sequence[bool],  # one for each input
    ) -> list[Tensor | None]:  # one for each input
        pyramid = _pyramid(levels, inputs[0])
        return self._gradients(grad_output, inputs, pyramid, points, mode == "discrete", needs)

    def gradients_fused(
        self,
        grad_output: Tensor,  # [B, Q, M*D]
        inputs: Sequence[Tensor],  # value, reference, offsets, logits
        levels: Levels,  # L pairs (H, W)
        points: Sequence[int],  # L counts, sum T
        mode: str,
        offset_scale: float,
        value_mask: Tensor | None,  # [B, S], True keeps
        needs: Sequence[bool],  # one for each input
    ) -> list[Tensor | None]:  # one for each input
        pyramid, discrete = _pyramid(levels, inputs[0]), mode == "discrete"
        return self._gradients_fused(
            grad_output, inputs, pyramid, points, discrete, offset_scale, value_mask, needs
        )

    def _operator(self, suffix: str) -> Callable[..., Any]:
        operator: Callable[..., Any] = getattr(torch.ops.rtdetr_ops, self.name + suffix)
        return operator

    def _gradients(
        self,
        grad_output: Tensor,
        inputs: Sequence[Tensor],
        pyramid: Pyramid,
        points: Sequence[int],
        discrete: bool,
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        needs = (needs[0], needs[1] and not discrete, needs[2])
        value, locations, weights = inputs
        grads = self._operator("_backward")(
            grad_output,
            value,
            *pyramid,
            locations,
            weights,
            points,
            discrete,
            torch.are_deterministic_algorithms_enabled(),
            *needs,
        )
        return _needed(grads, needs)

    def _gradients_fused(
        self,
        grad_output: Tensor,
        inputs: Sequence[Tensor],
        pyramid: Pyramid,
        points: Sequence[int],
        discrete: bool,
        offset_scale: float,
        value_mask: Tensor | None,
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        moves = not discrete
        needs = (needs[0], needs[1] and moves, needs[2] and moves, needs[3])
        value, reference, offsets, logits = inputs
        grads = self._operator("_fused_backward")(
            grad_output,
            value,
            *pyramid,
            reference,
            offsets,
            logits,
            points,
            discrete,
            offset_scale,
            value_mask,
            torch.are_deterministic_algorithms_enabled(),
            *needs,
        )
        return _needed(grads, needs)

    def _differentiate(self, ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        *inputs, level_sizes = ctx.saved_tensors
        needs_value, _, _, needs_locations, needs_weights, _, _ = ctx.needs_input_grad
        needs = (needs_value, needs_locations, needs_weights)
        pyramid = ctx.levels, level_sizes
        grad_value, grad_locations, grad_weights = self._gradients(
            grad_output, inputs, pyramid, ctx.points, ctx.discrete, needs
        )
        return grad_value, None, None, grad_locations, grad_weights, None, None

    def _differentiate_fused(self, ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        *inputs, level_sizes, value_mask = ctx.saved_tensors
        needs_value, _, _, *needs_others = ctx.needs_input_grad[:6]
        grad_value, *grads = self._gradients_fused(
            grad_output,
            inputs,
            (ctx.levels, level_sizes),
            ctx.points,
            ctx.discrete,
            ctx.offset_scale,
            value_mask,
            (needs_value, *needs_others),
        )
        return grad_value, None, None, *grads, None, None, None, None


def _call(
    operator: Callable[..., Tensor], arguments: tuple[Any, ...], tensors: tuple[Tensor, ...]
) -> Tensor:
    """``operator(*arguments)``, below autograd where nothing is differentiated.

    That saves the Python half of the registered gradient formula, a third of what a call on tiny inputs costs. A
    compiler always takes the full way.
    """
    if torch.compiler.is_compiling() or (
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    ):
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _pyramid(levels: Levels, value: Tensor) -> Pyramid:
    """Numbers, or the tensor itself where the kernels can read it: nothing waits for the device, no graph breaks."""
    if isinstance(levels, Tensor) and levels.device == value.device:
        return (), levels
    return [side for size in host_levels(levels) for side in size], None


def _fake_forward(
    value: Tensor, levels: list[int], level_sizes: Tensor | None, pairs: Tensor, *_: Any
) -> Tensor:
    return value.new_empty(pairs.shape[0], pairs.shape[1], value.shape[2] * value.shape[3])


def _fake_fused_forward(
    value: Tensor,
    levels: list[int],
    level_sizes: Tensor | None,
    reference: Tensor,
    offsets: Tensor,
    *_: Any,
) -> Tensor:
    return _fake_forward(value, levels, level_sizes, offsets)


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
    return _fake_gradients((value, reference, offsets, logits), needs)


def _needed(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    return [grad if needed else None for grad, needed in zip(grads, needs, strict=True)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, level_sizes, locations, weights, ctx.points, ctx.discrete = inputs
    ctx.save_for_backward(value, locations, weights, level_sizes)


def _save_fused(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.levels, level_sizes, reference, offsets, logits, ctx.points = inputs[:7]
    ctx.discrete, ctx.offset_scale, value_mask = inputs[7:]
    ctx.save_for_backward(value, reference, offsets, logits, level_sizes, value_mask)


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise NotImplementedError(
        "ms_deform_attn: the compiled backends are differentiable once; use backend='reference' for higher derivatives"
    )
