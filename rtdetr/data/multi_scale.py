# SPDX-License-Identifier: Apache-2.0
"""Images of another size in each step, the same on every rank."""

from __future__ import annotations

from torch import Tensor, nn

from .random_streams import size_stream

__all__ = ["PUBLISHED_SIDES", "resize_batch", "side_of_step", "sides_for"]

PUBLISHED_SIDES = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
"""Of square images, for networks of 640x640. Source: RT-DETRv2's configurations; 640 is drawn three times as often."""
MULTIPLE = 32
"""The coarsest map has a cell for so many pixels."""


def sides_for(imgsz: int) -> tuple[int, ...]:
    """The published sides in proportion to another size than 640, as multiples of 32."""
    return tuple(
        max(1, round(side * imgsz / 640 / MULTIPLE)) * MULTIPLE for side in PUBLISHED_SIDES
    )


def side_of_step(seed: int, step: int, sides: tuple[int, ...] = PUBLISHED_SIDES) -> int:
    """The side in ``step``, counted from the first of the run."""
    return sides[int(size_stream(seed, step).integers(len(sides)))]


def resize_batch(pixels: Tensor, side: int) -> Tensor:
    """Pixels [B, 3, H, W] of any dtype as [B, 3, side, side], by the nearest neighbor; boxes in fractions stay."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return nn.functional.interpolate(pixels, size=(side, side), mode="nearest")
