# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of boxes, for arrays of NumPy and tensors of torch alike.

A box is four numbers on the last axis: xyxy (left, top, right, bottom), cxcywh (center and size), or COCO's xywh
(left, top, width, height). Any leading axes. The result has the dtype of the boxes, float32 for integers. A size is
(height, width).
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
    "intersection_and_union",
    "iou_and_giou",
    "scale_boxes",
    "to_fractions",
    "xywh_to_xyxy",
    "xyxy_to_cxcywh",
    "xyxy_to_xywh",
]

SMALLEST_AREA = 1e-9
"""Of fractions of an image: a thirtieth of a pixel squared at 1000 x 1000. What is smaller divides nothing."""

Boxes = TypeVar("Boxes", npt.NDArray[Any], "Tensor")
Floats = npt.NDArray[Any]


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    boxes = _floating(boxes)
    center, size = boxes[..., :2], boxes[..., 2:]
    return _join(center - 0.5 * size, center + 0.5 * size)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    boxes = _floating(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return _join((low + high) / 2, high - low)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    boxes = _floating(boxes)
    corner, size = boxes[..., :2], boxes[..., 2:]
    return _join(corner, size + corner)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """[..., 4] to [..., 4]."""
    boxes = _floating(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return _join(low, high - low)


def clip_to_image(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Xyxy boxes [..., 4] in pixels, cut at the border of an image (height, width)."""
    boxes = _floating(boxes)
    return boxes.clip(0, _border(size).astype(boxes.dtype))


def to_fractions(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes of any form [..., 4] in pixels as fractions of an image (height, width)."""
    boxes = _floating(boxes)
    fractions: Floats = np.divide(boxes, _border(size)).astype(boxes.dtype)
    return fractions


def scale_boxes(boxes: Boxes, height: Any, width: Any) -> Boxes:
    """Boxes of any form with x multiplied by ``width`` and y by ``height``, numbers or [...] for the leading axes."""
    boxes = _floating(boxes)
    if isinstance(boxes, np.ndarray):
        dtype = np.promote_types(boxes.dtype, np.float32)
        factors = np.stack([width, height] * 2, axis=-1).astype(dtype)
        scaled: npt.NDArray[Any] = (boxes * factors).astype(boxes.dtype)
        return scaled
    import torch

    # A size such as 1281 is no number of bfloat16: the factors are wider, the product is rounded once.
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    sides = [
        torch.as_tensor(side, dtype=dtype, device=boxes.device) for side in (width, height) * 2
    ]
    return (boxes * torch.stack(sides, dim=-1)).to(boxes.dtype)


def _floating(boxes: Boxes) -> Boxes:
    if isinstance(boxes, np.ndarray):
        return boxes if np.issubdtype(boxes.dtype, np.floating) else boxes.astype(np.float32)
    return boxes if boxes.is_floating_point() else boxes.float()


def _border(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = size
    return np.asarray([width, height, width, height], dtype=np.float32)


def iou_and_giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and its generalization to boxes apart, of xyxy boxes [..., 4] that broadcast.

    Boxes without area have an IoU of 0, and finite gradients.

    Returns:
        Two tensors [...]: within 0..1, and within -1..1.

    Source: Generalized intersection over union (Rezatofighi et al., 2019), alg. 1.
    """
    intersection, union = intersection_and_union(first, second)
    outer_low = first[..., :2].minimum(second[..., :2])
    outer_high = first[..., 2:].maximum(second[..., 2:])
    hull = (outer_high - outer_low).prod(-1)
    iou = intersection / union.clamp(min=SMALLEST_AREA)
    return iou, iou - (hull - union) / hull.clamp(min=SMALLEST_AREA)


def intersection_and_union(first: Boxes, second: Boxes) -> tuple[Boxes, Boxes]:
    """The areas [...] that xyxy boxes [..., 4], which broadcast, have in common and in all."""
    is_array = isinstance(first, np.ndarray)
    larger, smaller = (np.maximum, np.minimum) if is_array else _torch_extremes()
    sides = smaller(first[..., 2:], second[..., 2:]) - larger(first[..., :2], second[..., :2])
    intersection = sides.clip(0).prod(-1)
    return intersection, _area(first) + _area(second) - intersection


def _torch_extremes() -> tuple[Any, Any]:
    import torch

    return torch.maximum, torch.minimum


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return area


def _join(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second], axis=-1)
    import torch

    return torch.cat([first, second], dim=-1)
