# SPDX-License-Identifier: Apache-2.0
"""The calling convention of the original CUDA extension: start indices and an ``im2col_step`` come with every call."""

from __future__ import annotations

from torch import Tensor

from ..levels import Levels, check_level_start_index
from .op import ms_deform_attn

__all__ = ["classic_attention"]


def classic_attention(
    value: Tensor,
    spatial_shapes: Levels,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """:func:`rtdetr_ops.ms_deform_attn` under the classic argument list; any ``im2col_step`` and any batch size go.

    Args:
        value: [B, S, M, D].
        spatial_shapes: int64 tensor [L, 2], (H, W) of each level.
        level_start_index: int64 tensor [L], the first row of each level on the S axis.
        sampling_locations: [B, Q, M, L, P, 2].
        attention_weights: [B, Q, M, L, P].
        im2col_step: not read; the op has no such limit.

    Returns:
        [B, Q, M*D], dtype of ``value``.

    Raises:
        ValueError: host-side start indices do not follow from the shapes; else as :func:`rtdetr_ops.ms_deform_attn`.
    """
    check_level_start_index(spatial_shapes, level_start_index)
    return ms_deform_attn(value, spatial_shapes, sampling_locations, attention_weights)
