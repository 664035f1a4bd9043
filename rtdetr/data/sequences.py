# SPDX-License-Identifier: Apache-2.0
"""Annotated images that Python holds: a sequence of (image, target)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..images.convert import tensor_to_array
from .annotations import Categories
from .findings import Report, fail
from .names import check_names
from .options import ReadOptions
from .unchecked import BoxList, UncheckedSplit

__all__ = ["SequenceReader"]

FORM = 'expected (image, {"boxes": [n, 4] xyxy in pixels, "class_labels": [n]})'


@dataclass(frozen=True)
class SequenceReader:
    """Reads a split from memory. Images are asked for again when they are needed.

    Args:
        split: "train" or "val".
        items: N pairs (image, target); an image is whatever :func:`rtdetr.images.io.load_image` takes, a target has
            "boxes" [n, 4] xyxy in pixels, "class_labels" or "labels" [n], and may have "iscrowd" [n] and "image_id".
        names: of the classes; by default they are called by their numbers, up to the highest there is.
    """

    split: str
    items: Sequence[Any]
    names: Sequence[str] | None = None

    def __call__(self, report: Report, options: ReadOptions) -> UncheckedSplit:
        targets = [self._target(index) for index in range(len(self.items))]
        labels = [_array(target.get("class_labels", target.get("labels"))) for target in targets]
        names = self.names
        if names is None:
            highest = max((int(array.max()) for array in labels if array.size), default=-1)
            names = [str(index) for index in range(highest + 1)]
        check_names(names, self.split, report)
        boxes = BoxList()
        for image, (target, classes) in enumerate(zip(targets, labels, strict=True)):
            self._add(boxes, image, target, classes, len(names))
        count = len(self.items)
        ids = [int(target.get("image_id", index)) for index, target in enumerate(targets)]
        return UncheckedSplit(
            self.split,
            self.split,
            "",
            [f"image {index}" for index in range(count)],
            ids,
            [(0, 0)] * count,
            boxes,
            Categories.numbered(names),
            lambda image, place: f"{self.split}: image {image} box {place}",
            load=self.load,
        )

    def load(self, index: int) -> Any:
        """The image of item ``index``."""
        return self.items[index][0]

    def _target(self, index: int) -> Mapping[str, Any]:
        item = self.items[index]
        target = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else None
        if (
            isinstance(target, Mapping)
            and "boxes" in target
            and {"class_labels", "labels"} & set(target)
        ):
            return target
        found = sorted(map(str, target)) if isinstance(target, Mapping) else type(item).__name__
        raise fail("bad-target", f"item {index}", f"{self.split}: item {index} is {found}; {FORM}")

    def _add(
        self,
        boxes: BoxList,
        image: int,
        target: Mapping[str, Any],
        classes: npt.NDArray[Any],
        total: int,
    ) -> None:
        corners = (
            _array(target["boxes"]).reshape(-1, 4) if np.size(target["boxes"]) % 4 == 0 else None
        )
        crowds = _array(target.get("iscrowd", np.zeros(len(classes)))).reshape(-1)
        where = f"{self.split}: item {image}"
        if corners is None or not len(corners) == len(classes) == len(crowds):
            shapes = [list(np.shape(target["boxes"])), list(classes.shape)]
            raise fail(
                "bad-target",
                f"item {image}",
                f"{where} has boxes and classes of shape {shapes}; {FORM}",
            )
        for place, label in enumerate(classes.tolist()):
            if label != int(label) or not 0 <= label < total:
                raise fail(
                    "unknown-category",
                    f"item {image}",
                    f"{where} has the class {label}; expected a whole number within 0..{total - 1}",
                )
            boxes.add(image, corners[place].tolist(), int(label), place, bool(crowds[place]))


def _array(values: Any) -> npt.NDArray[Any]:
    return tensor_to_array(values) if isinstance(values, torch.Tensor) else np.asarray(values)
