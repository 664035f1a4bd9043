# SPDX-License-Identifier: Apache-2.0
"""The position of each pixel of a map, as sines and cosines."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["position_embedding"]


def position_embedding(
    height: int, width: int, channels: int, temperature: int, legacy: bool, device: torch.device
) -> tuple[Tensor]:
    """One row per pixel, in raster order: sines then cosines of its row, sines then cosines of its column.

    Args:
        height: H of the map.
        width: W of the map.
        channels: C, a multiple of 4.
        temperature: the slowest wave is that many times as long as the fastest.
        legacy: number the pixels of a map that is not square as the original does: pixel t counts as row ``t // H`` and
            column ``t % H``.
        device: where to make it.

    Returns:
        [1, H*W, C], float32.

    Source: Attention Is All You Need (Vaswani et al., 2017), sec. 3.5, for each axis.
    """
    # float64 keeps the waves exact far from the origin; MPS has no float64.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    quarter = channels // 4
    frequency = temperature ** -(torch.arange(quarter, dtype=dtype, device=device) / quarter)
    rows, columns = torch.meshgrid(
        torch.arange(width if legacy else height, dtype=dtype, device=device),
        torch.arange(height if legacy else width, dtype=dtype, device=device),
        indexing="ij",
    )
    waves = [axis.reshape(-1, 1) * frequency for axis in (rows, columns)]  # each [H*W, C/4]
    embedding = torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], 1)
    return (embedding.to(torch.float32)[None],)
