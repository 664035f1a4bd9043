# SPDX-License-Identifier: Apache-2.0
"""A split as its files describe it: what every reader returns, before the images have been looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .annotations import BoolArray, Categories, IntArray
from .findings import Report
from .options import ReadOptions

__all__ = ["BoxList", "SplitReader", "UncheckedSplit"]


@dataclass
class BoxList:
    """The boxes of a split while its files are read, one list for each field."""

    images: list[int] = field(default_factory=list)
    corners: list[Any] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def add(self, image: int, corners: Any, label: int, place: int, crowd: bool = False) -> None:
        self.images.append(image)
        self.corners.append(corners)
        self.classes.append(label)
        self.places.append(place)
        self.crowds.append(crowd)


@dataclass
class UncheckedSplit:
    """N images and T boxes; any value may be wrong.

    Args:
        split: "train" or "val".
        source: the file or folder that findings name.
        root: the folder that ``names`` begin in.
        names: [N] image files, relative to ``root`` or absolute.
        image_ids: [N].
        sizes: [N, 2] (height, width) as declared, 0 where nothing is.
        listed: the boxes; xyxy in pixels, or in 0..1 with ``fractions``.
        fractions: the unit of the boxes.
        categories: the classes; those of ``listed`` are within them.
        place: sentence part for image i and place p of a box: "labels/1.txt line 3".
        load: returns image i where images are no files.
        sizes_hold: whether ``sizes`` are those of the images, which then need no look.
    """

    split: str
    source: str
    root: str
    names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int]]
    listed: BoxList
    categories: Categories
    place: Callable[[int, int], str]
    fractions: bool = False
    load: Callable[[int], Any] | None = None
    sizes_hold: bool = False

    def corners(self) -> npt.NDArray[np.float64]:
        """[T, 4]."""
        return np.asarray(self.listed.corners, dtype=np.float64).reshape(-1, 4)

    def owners(self) -> IntArray:
        """[T], the image of each box."""
        return np.asarray(self.listed.images, dtype=np.int64)

    def crowds(self) -> BoolArray:
        return np.asarray(self.listed.crowds, dtype=np.bool_)

    def place_of(self, box: int) -> str:
        """Where box number ``box`` stands."""
        return self.place(self.listed.images[box], self.listed.places[box])


SplitReader = Callable[[Report, ReadOptions], UncheckedSplit]
"""Reads one split; raises ``FatalFindingError`` where its file cannot be read."""
