# SPDX-License-Identifier: Apache-2.0
"""All annotations of a split as a few arrays.

Reading a Python object writes its reference count, so a worker that walks lists of millions of them copies the memory
it shares with its parent, page by page. Arrays are read without a write.
N images, T boxes, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Annotations", "Categories", "FileNames"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Categories:
    """What class 0..K-1 is called, and its id in the user's files.

    Args:
        ids: K ids, in the order of the file; any whole numbers.
        names: K names.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def numbered(cls, names: Sequence[str]) -> Categories:
        """Names whose ids are their places, as in YOLO's files."""
        return cls(tuple(range(len(names))), tuple(names))

    def class_of(self) -> dict[int, int]:
        """Category id -> class index."""
        return {category_id: index for index, category_id in enumerate(self.ids)}


class FileNames(Sequence[str]):
    """File names as one array of bytes; any name that the file system allows comes back as it was."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override] # names are not sliced
        index = range(len(self))[index]
        start, end = self._starts[index], self._starts[index + 1]
        return os.fsdecode(self._bytes[start:end].tobytes())


@dataclass(frozen=True, eq=False)
class Annotations:
    """One split.

    Args:
        root: the folder that ``names`` begin in.
        names: [N] file names, relative to ``root`` or absolute.
        image_ids: [N] ids in the user's files.
        sizes: [N, 2] (height, width) of the upright images, pixels.
        starts: [N + 1]; the boxes of image i are ``starts[i]:starts[i + 1]``.
        boxes: [T, 4] xyxy in pixels of the upright image, inside it, with positive sides.
        classes: [T] within 0..K-1.
        crowds: [T] True where a box is a crowd: nothing to learn, ignored by metrics.
        categories: names and ids of the K classes.
    """

    root: str
    names: FileNames
    image_ids: IntArray
    sizes: IntArray
    starts: IntArray
    boxes: FloatArray
    classes: IntArray
    crowds: BoolArray
    categories: Categories

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        """Where image ``index`` is."""
        return os.path.join(self.root, self.names[index])  # noqa: PTH118 -- Path would change odd names

    def of(self, index: int) -> slice:
        """The boxes of image ``index``."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def counts(self) -> IntArray:
        """[N] boxes of each image, crowds included."""
        return np.diff(self.starts)

    def learnable_counts(self) -> IntArray:
        """[N] boxes of each image that are no crowds."""
        owners = np.repeat(np.arange(len(self)), self.counts())
        return np.bincount(owners[~self.crowds], minlength=len(self))

    def class_counts(self) -> IntArray:
        """[K] boxes of each class that are no crowds."""
        return np.bincount(self.classes[~self.crowds], minlength=len(self.categories))

    def subset(self, images: IntArray) -> Annotations:
        """The images of the given indices [n], in that order."""
        counts = self.counts()[images]
        starts = np.concatenate([[0], np.cumsum(counts)])
        offsets = np.repeat(self.starts[images] - starts[:-1], counts)
        boxes = np.arange(starts[-1]) + offsets
        return replace(
            self,
            names=FileNames([self.names[index] for index in images]),
            image_ids=self.image_ids[images],
            sizes=self.sizes[images],
            starts=starts,
            boxes=self.boxes[boxes],
            classes=self.classes[boxes],
            crowds=self.crowds[boxes],
        )
