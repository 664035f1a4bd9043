# SPDX-License-Identifier: Apache-2.0
"""One annotated image on its way through the transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from .annotations import BoolArray, IntArray

__all__ = ["BoxArray", "Sample"]

BoxArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its objects.

    Args:
        image: RGB.
        boxes: [n, 4] xyxy in pixels of ``image``. In float64: float32 has steps of 1/4096 px at 4000 px.
        classes: [n].
    """

    image: Image.Image
    boxes: BoxArray
    classes: IntArray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.height, self.image.width

    def select(self, mask: BoolArray) -> Sample:
        """The sample with the objects of a mask [n] alone."""
        return Sample(self.image, self.boxes[mask], self.classes[mask])
