# SPDX-License-Identifier: Apache-2.0
"""The classic argument list, that of Deformable DETR's CUDA extension: start indices and an ``im2col_step`` come along.

``(value, spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step)``. The start indices
follow from the shapes, and the operator has no limit that ``im2col_step`` would serve: any goes with any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..backends import select
from ..levels import Levels, check_level_start_index
from .checks import check_grad_output, check_inputs
from .op import BACKENDS, ms_deform_attn

__all__ = ["classic_attention", "classic_gradients", "is_classic", "read_classic"]

MODE = "bilinear"


def is_classic(arguments: tuple[Any, ...]) -> bool:
    """Whether what follows ``value`` and ``levels`` is classic: no locations in front, no mode at the end."""
    first, last = arguments[0], arguments[-1]
    in_front = isinstance(first, Tensor) and first.is_floating_point()
    return not in_front and not isinstance(last, str)


def read_classic(
    spatial_shapes: Levels,
    level_start_index: Tensor | Sequence[int] | None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, None, str]:
    """``locations``, ``weights``, ``points`` and ``mode`` of :func:`rtdetr_ops.ms_deform_attn`.

    Raises:
        TypeError, ValueError: see :func:`~rtdetr_ops.levels.check_level_start_index`.
    """
    check_level_start_index(spatial_shapes, level_start_index)
    return sampling_locations, attention_weights, None, MODE


def classic_attention(
    value: Tensor,
    spatial_shapes: Levels,
    level_start_index: Tensor | Sequence[int] | None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """:func:`rtdetr_ops.ms_deform_attn` under the classic argument list.

    Args:
        value: [B, S, M, D].
        spatial_shapes: integer tensor [L, 2] or pairs, (H, W) of each level.
        level_start_index: integer tensor [L] or a sequence, the first pixel of each level on the S axis; None for what
            the shapes imply.
        sampling_locations: [B, Q, M, L, P, 2].
        attention_weights: [B, Q, M, L, P].
        im2col_step: not read.

    Returns:
        [B, Q, M*D], dtype of ``value``.

    Raises:
        TypeError, ValueError: start indices that can be read do not follow from the shapes, or are no indices; else as
            :func:`rtdetr_ops.ms_deform_attn`.
    """
    locations, weights, points, mode = read_classic(
        spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step
    )
    return ms_deform_attn(value, spatial_shapes, locations, weights, points=points, mode=mode)


def classic_gradients(
    value: Tensor,
    spatial_shapes: Levels,
    level_start_index: Tensor | Sequence[int] | None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward of :func:`classic_attention`.

    Args:
        value: [B, S, M, D]; it and the others as for :func:`classic_attention`.
        spatial_shapes: integer tensor [L, 2] or pairs.
        level_start_index: integer tensor [L], a sequence or None.
        sampling_locations: [B, Q, M, L, P, 2].
        attention_weights: [B, Q, M, L, P].
        grad_output: [B, Q, M*D], gradient of the result.
        im2col_step: not read.

    Returns:
        Gradients of ``value``, ``sampling_locations`` and ``attention_weights``.

    Raises:
        TypeError, ValueError: as :func:`classic_attention`; ``grad_output`` is malformed.
    """
    arguments = read_classic(
        spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step
    )
    levels, locations, weights, counts = check_inputs(value, spatial_shapes, *arguments)
    check_grad_output(grad_output, value, locations.shape[1])
    grads = select(BACKENDS, None, value).implementation.gradients(
        grad_output, (value, locations, weights), levels, counts, MODE, (True, True, True)
    )
    grad_value, grad_locations, grad_weights = (grad for grad in grads if grad is not None)
    return (
        grad_value,
        grad_locations.view_as(sampling_locations),
        grad_weights.view_as(attention_weights),
    )
