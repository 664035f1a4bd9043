# SPDX-License-Identifier: Apache-2.0
"""The functions of a compiled backend: calls of its four registered operators.

They are ``<name>``, ``<name>_backward``, ``<name>_fused`` and ``<name>_fused_backward``, with the schemas of
csrc/ms_deform_attn/op.cpp. The pyramid is two arguments there: ``levels``, flat, [H_0, W_0, H_1, ...], and
``level_sizes``, a tensor [L, 2] beside ``value`` that counts where it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ..levels import Levels, host_levels
from ..tracing import is_jit_tracing

__all__ = ["SCHEMAS", "Operators", "check_devices"]

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
"""Suffix of an operator's name -> its schema, as in csrc/ms_deform_attn/op.cpp."""


_REQUIRES_GRAD = attrgetter("requires_grad")


def check_devices(value: Tensor, others: Mapping[str, Tensor | None]) -> None:
    """What the public functions check too; whoever calls a registered operator does not pass them.

    Raises:
        RuntimeError: a tensor is not on the device of ``value``.
    """
    for name, tensor in others.items():
        if tensor is not None and tensor.device != value.device:
            raise RuntimeError(
                f"{name}: expected device {value.device} as value, got {tensor.device}"
            )


class Operators:
    """The :class:`~rtdetr_ops.backends.Implementation` behind the first operator's name in ``torch.ops.rtdetr_ops``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Levels,  # L pairs (H, W)
        locations: Tensor,  # [B, Q, M, T, 2]
        weights: Tensor,  # [B, Q, M, T]
        points: Sequence[int],  # L counts, sum T
        mode: str,
    ) -> Tensor:  # [B, Q, M*D]
        arguments = (
            value,
            *_pyramid(levels, value),
            locations,
            weights,
            points,
            mode == "discrete",
        )
        try:
            with _below_autograd(value, locations, weights):
                output: Tensor = self._operator("")(*arguments)
        except RuntimeError as error:
            _raise_if_out_of_memory(error, value)
            raise
        return output

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
        try:
            with _below_autograd(value, reference, offsets, logits):
                output: Tensor = self._operator("_fused")(*arguments)
        except RuntimeError as error:
            _raise_if_out_of_memory(error, value)
            raise
        return output

    def gradients(
        self,
        grad_output: Tensor,  # [B, Q, M*D]
        inputs: Sequence[Tensor],  # value, locations, weights
        levels: Levels,  # L pairs (H, W)
        points: Sequence[int],  # L counts, sum T
        mode: str,
        needs: Sequence[bool],  # one for each input
    ) -> list[Tensor | None]:  # one for each input
        discrete = mode == "discrete"
        needs = (needs[0], needs[1] and not discrete, needs[2])
        value, locations, weights = inputs
        arguments = (
            grad_output,
            value,
            *_pyramid(levels, value),
            locations,
            weights,
            points,
            discrete,
            torch.are_deterministic_algorithms_enabled(),
            *needs,
        )
        try:
            grads = self._operator("_backward")(*arguments)
        except RuntimeError as error:
            _raise_if_out_of_memory(error, value)
            raise
        return _needed(grads, needs)

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
        discrete = mode == "discrete"
        needs = (needs[0], needs[1] and not discrete, needs[2] and not discrete, needs[3])
        value, reference, offsets, logits = inputs
        arguments = (
            grad_output,
            value,
            *_pyramid(levels, value),
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
        try:
            grads = self._operator("_fused_backward")(*arguments)
        except RuntimeError as error:
            _raise_if_out_of_memory(error, value)
            raise
        return _needed(grads, needs)

    def _operator(self, suffix: str) -> Callable[..., Any]:
        operator: Callable[..., Any] = getattr(torch.ops.rtdetr_ops, self.name + suffix)
        return operator


def _below_autograd(*tensors: Tensor) -> AbstractContextManager[object]:
    """Skips autograd where nothing is differentiated; a compiler always takes the full way.

    That saves the Python half of the registered gradient formula, a third of what a call on tiny inputs costs.
    """
    if torch.compiler.is_compiling() or (
        torch.is_grad_enabled() and any(map(_REQUIRES_GRAD, tensors))
    ):
        return nullcontext()
    guard: AbstractContextManager[object] = torch._C._AutoDispatchBelowAutograd()
    return guard


def _pyramid(levels: Levels, value: Tensor) -> tuple[Sequence[int], Tensor | None]:
    """``levels`` and ``level_sizes`` of the operators.

    Numbers, or the tensor itself where the kernels can read it: nothing waits for the device, no graph breaks.
    """
    if isinstance(levels, Tensor) and levels.device == value.device:
        return (), levels
    sides = [side for size in host_levels(levels) for side in size]
    if is_jit_tracing():
        # Sizes that a trace follows fit into no list of integers.
        column = [torch.full((1,), it, dtype=torch.int64, device=value.device) for it in sides]
        return (), torch.cat(column).view(-1, 2)
    return sides, None


def _raise_if_out_of_memory(error: RuntimeError, value: Tensor) -> None:
    """Give the one error that callers catch, to try less, its type.

    torch's stable interface has none, so all of the compiled library are RuntimeErrors.
    """
    if type(error) is RuntimeError and "CUDA out of memory" in str(error):
        # A device that has failed gives no memory either, and says so when it is asked.
        torch.cuda.mem_get_info(value.device)
        raise torch.OutOfMemoryError(str(error)) from None


def _needed(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    return [grad if needed else None for grad, needed in zip(grads, needs, strict=True)]
