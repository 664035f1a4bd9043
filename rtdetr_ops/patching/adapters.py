# SPDX-License-Identifier: Apache-2.0
"""One function per call signature found in other people's detectors, each a few lines onto the public operator.

Every parameter list is the one of the code it stands in for: callers pass some by position and some by name. Shapes use
the letters of :func:`rtdetr_ops.ms_deform_attn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..levels import Levels, check_level_start_index
from ..ms_deform_attn import ms_deform_attn
from ..ms_deform_attn.classic import classic_attention
from ..ms_deform_attn.module import attend

__all__ = [
    "ClassicFunction",
    "ClassicFunctionFloat32",
    "channels_first",
    "channels_first_on_host",
    "deformable_detr_forward",
    "flat_or_level_points",
    "flat_points",
    "mmcv_forward",
    "rf_detr_forward",
    "square_points",
    "transformers_forward",
]

_MODES = {"default": "bilinear", "discrete": "discrete"}


def square_points(
    value: Tensor,  # [B, S, M, D]
    value_spatial_shapes: Levels,
    sampling_locations: Tensor,  # [B, Q, M, L, P, 2]
    attention_weights: Tensor,  # [B, Q, M, L, P]
) -> Tensor:  # [B, Q, M*D]
    """The same count of points on every level: mmcv, detrex, Grounding DINO, Mask2Former, OneFormer, RT-DETR."""
    return ms_deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def flat_points(
    value: Tensor | Sequence[Tensor],  # [B, S, M, D], or one [B, M, D, H*W] per level
    value_spatial_shapes: Levels,
    sampling_locations: Tensor,  # [B, Q, M, T, 2]
    attention_weights: Tensor,  # [B, Q, M, T]
    num_points_list: Sequence[int],
    method: str = "default",
) -> Tensor:  # [B, Q, M*D]
    """A point count per level and two sampling methods; RT-DETRv2 has one value tensor, D-FINE one per level.

    Raises:
        ValueError: ``method`` is neither ``"default"`` nor ``"discrete"``.
    """
    if method not in _MODES:
        raise ValueError(f"method: expected 'default' or 'discrete', got {method!r}")
    if not isinstance(value, Tensor):
        value = torch.cat([level.permute(0, 3, 1, 2) for level in value], 1)
    return ms_deform_attn(
        value,
        value_spatial_shapes,
        sampling_locations,
        attention_weights,
        points=tuple(num_points_list),
        mode=_MODES[method],
    )


def flat_or_level_points(
    value: Tensor | Sequence[Tensor],  # [B, S, M, D], or one [B, M, D, H*W] per level
    value_spatial_shapes: Levels,
    sampling_locations: Tensor,  # [B, Q, M, T, 2]
    attention_weights: Tensor,  # [B, Q, M, T]
    num_points_list: Sequence[int],
    method: str = "default",
    value_shape: str = "default",
) -> Tensor:  # [B, Q, M*D]
    """DEIM, whose decoders say which of the two values of :func:`flat_points` they have.

    Raises:
        ValueError: ``value_shape`` is neither ``"default"``, one value per level, nor ``"reshape"``, one for all; or as
            :func:`flat_points`.
    """
    if value_shape not in ("default", "reshape"):
        raise ValueError(f"value_shape: expected 'default' or 'reshape', got {value_shape!r}")
    if value_shape == "default":
        value = tuple(value)
    return flat_points(
        value, value_spatial_shapes, sampling_locations, attention_weights, num_points_list, method
    )


def channels_first(
    value: Tensor,  # [B, M, D, S]
    value_spatial_shapes: Levels,
    sampling_locations: Tensor,  # [B, Q, M, L, P, 2], or [B, Q, M, L*P, 2]
    attention_weights: Tensor,  # [B, Q, M, L*P]
) -> Tensor:  # [B, Q, M*D]
    """RF-DETR keeps the pixels last."""
    value = value.permute(0, 3, 1, 2)
    return ms_deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def channels_first_on_host(
    value: Tensor,  # [B, M, D, S]
    value_spatial_shapes: Levels,
    sampling_locations: Tensor,  # as channels_first
    attention_weights: Tensor,  # [B, Q, M, L*P]
    value_spatial_shapes_hw: Sequence[tuple[int, int]] | None = None,
) -> Tensor:  # [B, Q, M*D]
    """Later versions of RF-DETR hand over the shapes on the host too, so an accelerator is never waited for."""
    shapes = value_spatial_shapes if value_spatial_shapes_hw is None else value_spatial_shapes_hw
    return channels_first(value, shapes, sampling_locations, attention_weights)


class ClassicFunction:
    """Stands in for the ``torch.autograd.Function`` of Deformable DETR and mmcv, which is only ever ``apply``-ed."""

    apply = staticmethod(classic_attention)


class ClassicFunctionFloat32:
    """BEVFormer's variant: under autocast the value is promoted, and with it the result."""

    @staticmethod
    def apply(value: Tensor, *arguments: Any) -> Tensor:
        if torch.is_autocast_enabled(value.device.type):
            value = value.float()
        return classic_attention(value, *arguments)


def transformers_forward(
    self: nn.Module,
    value: Tensor,  # [B, S, M, D]
    value_spatial_shapes: Tensor,  # [L, 2]
    value_spatial_shapes_list: Sequence[tuple[int, int]],
    level_start_index: Tensor,
    sampling_locations: Tensor,  # [B, Q, M, L, P, 2]
    attention_weights: Tensor,  # [B, Q, M, L, P]
    im2col_step: int,
) -> Tensor:  # [B, Q, M*D]
    """The kernel slot of transformers; the host list of shapes is read, so an accelerator is never waited for."""
    check_level_start_index(value_spatial_shapes_list, level_start_index)
    return ms_deform_attn(value, value_spatial_shapes_list, sampling_locations, attention_weights)


def deformable_detr_forward(
    self: Any,
    query: Tensor,  # [B, Q, C]
    reference_points: Tensor,  # [B, Q, L, 2|4]
    input_flatten: Tensor,  # [B, S, C]
    input_spatial_shapes: Levels,
    input_level_start_index: Tensor | None = None,
    input_padding_mask: Tensor | None = None,  # [B, S], True = padded
) -> Tensor:  # [B, Q, C]
    """The whole layer of Deformable DETR and its clones: softmax and locations move into the op."""
    check_level_start_index(input_spatial_shapes, input_level_start_index)
    return attend(
        self,
        query,
        reference_points,
        input_flatten,
        input_spatial_shapes,
        input_padding_mask,
        heads=self.n_heads,
        points=self.n_points,
    )


def rf_detr_forward(
    self: Any,
    query: Tensor,  # [B, Q, C]
    reference_points: Tensor,  # [B, Q, L, 2|4]
    input_flatten: Tensor,  # [B, S, C]
    input_spatial_shapes: Levels,
    input_level_start_index: Tensor | None = None,
    input_padding_mask: Tensor | None = None,  # [B, S], True = padded
    input_spatial_shapes_hw: Sequence[tuple[int, int]] | None = None,
) -> Tensor:  # [B, Q, C]
    """The whole layer of later versions of RF-DETR, with the shapes on the host too."""
    shapes = input_spatial_shapes if input_spatial_shapes_hw is None else input_spatial_shapes_hw
    return deformable_detr_forward(
        self,
        query,
        reference_points,
        input_flatten,
        shapes,
        input_level_start_index,
        input_padding_mask,
    )


def mmcv_forward(
    self: Any,
    query: Tensor,  # [Q, B, C], or [B, Q, C] when batch_first
    key: Tensor | None = None,
    value: Tensor | None = None,  # [S, B, C], or [B, S, C]
    identity: Tensor | None = None,  # as query
    query_pos: Tensor | None = None,  # as query
    key_padding_mask: Tensor | None = None,  # [B, S], nonzero = padded
    reference_points: Tensor | None = None,  # [B, Q, L, 2|4]
    spatial_shapes: Levels | None = None,
    level_start_index: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:  # as query
    """The whole layer of mmcv and detrex: positions, projections, attention, dropout, residual.

    ``residual`` among the further keywords is what mmcv called ``identity`` before, and still takes.
    """
    identity = kwargs.get("residual") if identity is None else identity
    if reference_points is None or spatial_shapes is None:
        raise TypeError("reference_points, spatial_shapes: expected tensors, got None")
    check_level_start_index(spatial_shapes, level_start_index)
    value = query if value is None else value
    identity = query if identity is None else identity
    query = query if query_pos is None else query + query_pos
    if not self.batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
    output = attend(
        self,
        query,
        reference_points,
        value,
        spatial_shapes,
        key_padding_mask,
        heads=self.num_heads,
        points=self.num_points,
    )
    if not self.batch_first:
        output = output.transpose(0, 1)
    dropped: Tensor = self.dropout(output)
    return dropped + identity
