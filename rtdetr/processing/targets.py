# SPDX-License-Identifier: Apache-2.0
"""COCO annotations of one image, carried along while the image is resized and padded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..boxes import clip_to_image, scale_boxes, to_fractions, xywh_to_xyxy, xyxy_to_cxcywh
from ..checking import as_int, as_number
from ..errors import DataError

Target = dict[str, npt.NDArray[Any]]
Size = tuple[int, int]


def coco_target(annotation: Mapping[str, Any], size: Size, argument: str = "annotations") -> Target:
    """One image's COCO annotations as arrays, boxes as absolute xyxy.

    Crowds are left out; boxes are clipped to the image, and those without an area then are dropped.

    Args:
        annotation: ``{"image_id": int, "annotations": [{"bbox": [x, y, w, h], "category_id": int, ...}]}``.
            ``area`` defaults to w*h, ``iscrowd`` to 0. The category id is the class index; nothing is remapped.
        size: (height, width) of the image, pixels.
        argument: the name errors give to the annotation.

    Returns:
        image_id int64 [1], class_labels int64 [N], boxes float32 [N,4], area float32 [N], iscrowd int64 [N],
        orig_size int64 [2] (height, width), and where the objects have them
        keypoints float32 [N*K,3] (x, y, visibility), those of the first object first, as transformers has them.

    Raises:
        DataError: if a key is missing, an id is no whole number or a box has no four finite numbers.
    """
    objects = [entry for entry in _objects(annotation, argument) if not entry.get("iscrowd", 0)]
    xywh = _boxes([entry["bbox"] for entry in objects], argument)
    boxes = clip_to_image(xywh_to_xyxy(xywh), size)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    area = [_area(entry, box) for entry, box in zip(objects, xywh, strict=True)]
    labels = [_whole(entry["category_id"], f"{argument}: category_id") for entry in objects]
    target: Target = {
        "image_id": np.asarray([_whole(annotation["image_id"], f"{argument}: image_id")], np.int64),
        "class_labels": np.asarray(labels, dtype=np.int64)[keep],
        "boxes": boxes[keep],
        "area": np.asarray(area, dtype=np.float32)[keep],
        "iscrowd": np.zeros(int(keep.sum()), dtype=np.int64),
        "orig_size": np.asarray(size, dtype=np.int64),
    }
    if objects and "keypoints" in objects[0]:
        points = np.asarray([entry["keypoints"] for entry in objects], dtype=np.float32)[keep]
        target["keypoints"] = points.reshape((-1, 3)) if len(points) else points
    return target


def resized(target: Target, old: Size, new: Size) -> Target:
    """Boxes and areas after the image went from ``old`` to ``new`` (height, width); adds ``size``."""
    ratio_height, ratio_width = new[0] / old[0], new[1] / old[1]
    return target | {
        "size": np.asarray(new, dtype=np.int64),
        "boxes": scale_boxes(target["boxes"], ratio_height, ratio_width),
        "area": target["area"] * np.float32(ratio_width * ratio_height),
    }


def normalized(target: Target, size: Size) -> Target:
    """Absolute xyxy boxes as cxcywh in fractions of ``size`` (height, width)."""
    return target | {"boxes": to_fractions(xyxy_to_cxcywh(target["boxes"]), size)}


def padded(target: Target, old: Size, new: Size, *, fractions: bool) -> Target:
    """After padding at the bottom and right; boxes in ``fractions`` now refer to the larger image."""
    boxes = target["boxes"]
    if fractions:
        wide = scale_boxes(boxes.astype(np.float64), old[0] / new[0], old[1] / new[1])
        boxes = wide.astype(np.float32)
    return target | {"size": np.asarray(new, dtype=np.int64), "boxes": boxes}


def _objects(annotation: Mapping[str, Any], argument: str) -> list[Mapping[str, Any]]:
    if not isinstance(annotation, Mapping) or not {"image_id", "annotations"} <= annotation.keys():
        raise DataError(
            f'{argument}: expected {{"image_id": int, "annotations": [...]}} per image (COCO detection), got '
            f"{sorted(annotation) if isinstance(annotation, Mapping) else type(annotation).__name__}"
        )
    entries = annotation["annotations"]
    if not isinstance(entries, Sequence) or not all(isinstance(one, Mapping) for one in entries):
        raise DataError(f"{argument}: expected a list of objects (dicts), got {entries!r:.80}")
    for index, entry in enumerate(entries):
        for key in ("bbox", "category_id"):
            if key not in entry:
                raise DataError(
                    f"{argument}: object {index} of image {annotation['image_id']} has no {key!r}"
                )
    return list(entries)


def _boxes(boxes: list[Any], argument: str) -> npt.NDArray[np.float32]:
    for index, box in enumerate(boxes):
        numbers = [as_number(side) for side in box] if isinstance(box, Iterable) else []
        if len(numbers) != 4 or not all(one is not None and math.isfinite(one) for one in numbers):
            raise DataError(
                f"{argument}: object {index}: expected bbox [x, y, width, height], got {box}"
            )
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def _whole(value: Any, argument: str) -> int:
    """An id; tables write whole numbers as 3.0."""
    whole, number = as_int(value), as_number(value)
    if whole is None and number is not None and number.is_integer():
        whole = int(number)
    if whole is None:
        raise DataError(f"{argument}: expected a whole number, got {value!r}")
    return whole


def _area(entry: Mapping[str, Any], box: npt.NDArray[np.float32]) -> float:
    value = entry.get("area")
    area = float(box[2:].prod()) if value is None else as_number(value)
    if area is None:
        raise DataError(f"annotations: area: expected a number, got {value!r}")
    return area
