# SPDX-License-Identifier: Apache-2.0
"""What the network accepts, checked before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import RTDetrV2Config

__all__ = ["check_pixels", "encoder_maps"]


def check_pixels(pixel_values: Tensor | None, config: RTDetrV2Config) -> Tensor:
    """``pixel_values`` if the network can run on them.

    Raises:
        ValueError: not [B, 3, H, W], not floating point, or a side is not a multiple of the coarsest stride.
    """
    if pixel_values is None:
        raise ValueError("pixel_values: expected a tensor [B, 3, H, W], got None")
    shape, channels = list(pixel_values.shape), config.backbone_config.in_channels
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"pixel_values: expected shape [B, {channels}, H, W], got {shape}")
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values: expected floating point numbers in 0..1, got {pixel_values.dtype}"
        )
    stride = config.feat_strides[-1]
    if shape[2] % stride or shape[3] % stride or not shape[2] or not shape[3]:
        raise ValueError(
            f"pixel_values: expected H and W that are multiples of {stride}, got {shape[2]}x{shape[3]} (HxW)"
        )
    return pixel_values


def encoder_maps(encoder_outputs: Any) -> list[Tensor]:
    """The maps of an encoder's output: a record with last_hidden_state, a tuple starting with the maps, or the maps."""
    maps = getattr(encoder_outputs, "last_hidden_state", encoder_outputs)
    return list(maps if isinstance(maps[0], torch.Tensor) else maps[0])
