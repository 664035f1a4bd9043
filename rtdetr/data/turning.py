# SPDX-License-Identifier: Apache-2.0
"""Boxes turned as EXIF turns their image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["turn_boxes"]

# Orientation -> (whether x and y change places first, whether x is then mirrored, whether y is).
TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def turn_boxes(
    boxes: npt.NDArray[np.float64], size: tuple[int, int], orientation: int
) -> npt.NDArray[np.float64]:
    """Xyxy boxes [n, 4] of an image (height, width) as stored, in the frame of the upright image."""
    is_swapped, is_mirrored_x, is_mirrored_y = TURNS[orientation]
    height, width = size[::-1] if is_swapped else size
    x1, y1, x2, y2 = boxes.T[[1, 0, 3, 2]] if is_swapped else boxes.T
    if is_mirrored_x:
        x1, x2 = width - x2, width - x1
    if is_mirrored_y:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], axis=1)
