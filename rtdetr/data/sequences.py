# SPDX-License-Identifier: Apache-2.0
"""Annotated images that Python holds: a sequence of (image, target)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..images.convert import tensor_to_array
from ..images.names import is_local_path
from .annotations import Categories
from .findings import Report, fail
from .names import check_names
from .options import ReadOptions
from .unchecked import BoxList, UncheckedSplit

__all__ = ["ImagesOnDemand", "SequenceReader"]

FORM = 'expected (image, {"boxes": [n, 4] xyxy in pixels, "class_labels": [n]})'


class ImagesOnDemand(Sequence[Any]):
    """Pairs (image, target) whose images are made when they are asked for, and whose targets can be had without."""

    @abstractmethod
    def target(self, index: int) -> Mapping[str, Any]:
        """The target of pair ``index``, and in "size" the (height, width) of its image."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is annotated in an image; any value may be wrong."""

    boxes: npt.NDArray[np.float64]  # [n, 4]
    classes: npt.NDArray[np.float64]  # [n]
    crowds: npt.NDArray[np.float64]  # [n], not 0 where a box is a crowd
    image_id: int
    name: str  # of the image
    size: tuple[int, int] = (0, 0)  # (height, width), if it is told

    @classmethod
    def from_entries(cls, image: Any, entries: Mapping[str, Any], index: int) -> Target:
        """The arrays of a user's target. An image is called by its path, else by its place; None is one to be drawn.

        Raises:
            TypeError, ValueError: if something is no numbers.
        """
        boxes = _numbers(entries["boxes"])
        classes = _numbers(entries.get("class_labels", entries.get("labels")))
        crowds = _numbers(entries.get("iscrowd", np.zeros(classes.shape)))
        boxes = boxes if boxes.size else boxes.reshape(0, 4)
        name = str(image) if is_local_path(image) else f"image {index}"
        if image is None and "size" not in entries:
            raise ValueError('no "size" (height, width) of its image')
        height, width = entries["size"] if image is None else (0, 0)
        image_id = int(entries.get("image_id", index))
        return cls(boxes, classes, crowds, image_id, name, (int(height), int(width)))


@dataclass(frozen=True)
class SequenceReader:
    """Reads a split from memory. Images are asked for again when they are needed.

    Args:
        split: "train" or "val".
        items: N pairs (image, target); an image is whatever :func:`rtdetr.images.io.load_image` takes, a target has
            "boxes" [n, 4] xyxy in pixels, "class_labels" or "labels" [n], and may have "iscrowd" [n] and "image_id".
            Images of :class:`ImagesOnDemand` are not looked at.
        names: of the classes; by default they are called by their numbers, up to the highest there is.
    """

    split: str
    items: Sequence[Any]
    names: Sequence[str] | None = None

    def __call__(self, report: Report, options: ReadOptions) -> UncheckedSplit:
        targets = [self._read_target(index) for index in range(len(self.items))]
        names = self.names
        if names is None:
            highest = max((int(target.classes.max(initial=-1)) for target in targets), default=-1)
            names = [str(index) for index in range(highest + 1)]
        check_names(names, self.split, report)
        boxes = BoxList()
        for image, target in enumerate(targets):
            self._add(boxes, image, target, len(names))
        return UncheckedSplit(
            self.split,
            self.split,
            "",
            [target.name for target in targets],
            [target.image_id for target in targets],
            [target.size for target in targets],
            boxes,
            Categories.numbered(names),
            lambda image, place: f"{self.split}: item {image} box {place}",
            load=self.load,
            sizes_hold=isinstance(self.items, ImagesOnDemand),
        )

    def load(self, index: int) -> Any:
        """The image of item ``index``."""
        return self.items[index][0]

    def _read_target(self, index: int) -> Target:
        items = self.items
        item = (None, items.target(index)) if isinstance(items, ImagesOnDemand) else items[index]
        entries: Any = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else None
        where = f"{self.split}: item {index}"
        is_target = isinstance(entries, Mapping) and "boxes" in entries
        if not is_target or not {"class_labels", "labels"} & set(entries):
            kind = type(item).__name__
            found = sorted(map(str, entries)) if isinstance(entries, Mapping) else kind
            raise fail("bad-target", f"item {index}", f"{where} is {found}; {FORM}")
        try:
            target = Target.from_entries(item[0], entries, index)
        except (TypeError, ValueError) as error:
            raise fail("bad-target", f"item {index}", f"{where}: {error}; {FORM}") from error
        shapes = target.boxes.shape, target.classes.shape, target.crowds.shape
        count = len(target.boxes)
        if shapes != ((count, 4), (count,), (count,)):
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise fail(
                "bad-target",
                f"item {index}",
                f"{where} has boxes, classes and crowds of shapes {told}; {FORM}",
            )
        return target

    def _add(self, boxes: BoxList, image: int, target: Target, total: int) -> None:
        for place, label in enumerate(target.classes.tolist()):
            if not (label == label // 1 and 0 <= label < total):
                raise fail(
                    "unknown-category",
                    f"item {image}",
                    f"{self.split}: item {image} has the class {label:g}; expected a whole number in 0..{total - 1}",
                )
            crowd = bool(target.crowds[place])
            boxes.add(image, target.boxes[place].tolist(), int(label), place, crowd)


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    array = tensor_to_array(values) if isinstance(values, torch.Tensor) else values
    return np.asarray(array, dtype=np.float64)
