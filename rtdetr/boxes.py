# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of boxes, for arrays of NumPy and tensors of torch alike.

A box is four numbers on the last axis: xyxy (left, top, right, bottom), cxcywh (center and size), or COCO's xywh
(left, top, width, height). Any leading axes; the result has the dtype of the boxes. A size is (height, width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "clip_to_image",
    "cxcywh_to_xyxy",
    "scale_boxes",
    "to_fractions",
    "xywh_to_xyxy",
    "xyxy_to_cxcywh",
    "xyxy_to_xywh",
]

Boxes = TypeVar("Boxes", npt.NDArray[Any], "Tensor")


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return _join(center - 0.5 * size, center + 0.5 * size)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return _join((low + high) / 2, high - low)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    corner, size = boxes[..., :2], boxes[..., 2:]
    return _join(corner, size + corner)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return _join(low, high - low)


def clip_to_image(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Xyxy boxes [..., 4] in pixels, cut at the border of an image (height, width)."""
    height, width = size
    return boxes.clip(0, np.asarray([width, height, width, height], dtype=np.float32))


def to_fractions(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Boxes of any form [..., 4] in pixels as fractions of an image (height, width)."""
    height, width = size
    border = np.asarray([width, height, width, height], dtype=np.float32)
    fractions: npt.NDArray[np.float32] = np.divide(boxes, border)
    return fractions


def scale_boxes(boxes: Boxes, height: Any, width: Any) -> Boxes:
    """Boxes of any form with x multiplied by ``width`` and y by ``height``, numbers or [...] for the leading axes."""
    if isinstance(boxes, np.ndarray):
        scaled: npt.NDArray[Any] = boxes * np.stack([width, height] * 2, axis=-1).astype(
            boxes.dtype
        )
        return scaled
    import torch

    factors = [torch.as_tensor(side, device=boxes.device) for side in (width, height) * 2]
    return boxes * torch.stack(factors, dim=-1)


def _join(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second], axis=-1)
    import torch

    return torch.cat([first, second], dim=-1)
