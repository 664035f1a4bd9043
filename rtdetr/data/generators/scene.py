# SPDX-License-Identifier: Apache-2.0
"""What a generator draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Scene", "SceneMaker", "draw_scene"]


@dataclass(frozen=True)
class Scene:
    """An image and its objects.

    Args:
        image: RGB.
        boxes: [n, 4] xyxy in whole pixels, inside the image.
        classes: [n] places in the names of its maker.
    """

    image: Image.Image
    boxes: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]


class SceneMaker(Protocol):
    """Draws scenes of one kind."""

    names: tuple[str, ...]

    def draw(self, rng: np.random.Generator, *, is_val: bool) -> Scene:
        """A scene that is a function of the numbers of ``rng``; those of val show objects that train never shows."""
        ...


def draw_scene(maker: SceneMaker, seed: int, index: int, *, is_val: bool) -> Scene:
    """Scene ``index`` of a split."""
    return maker.draw(np.random.default_rng((seed, is_val, index)), is_val=is_val)
