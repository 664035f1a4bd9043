# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits of scikit-learn, on its two photos and on computed grounds: small, quick to make, and offline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import MissingExtraError, UsageError
from .ground import draw_ground
from .scene import Scene

__all__ = ["Digits"]

SIDE = 320
MOST = 12
EMPTY_SHARE = 0.08
HEIGHTS = (20, 150)
"""Pixels, drawn evenly on a logarithmic scale."""
ANGLES = (-25, 25)
"""Degrees; further, a 6 is a 9."""
TRIALS = 30
MOST_COVERED = 0.25
"""Of the smaller of two boxes: what is hidden further can be told by nobody."""
LEAST_INK = 48
"""Alpha of 255 from which on a pixel belongs to a digit."""
LEAST_CONTRAST = 70
HELD_OUT = 5
"""Every so many-th digit is for val alone."""

Box = tuple[int, int, int, int]
Alpha = npt.NDArray[np.uint8]


class Digits:
    """Ten classes, "0" to "9"; from none to twelve of them on 320x320 pixels, in any color, size and place.

    Args:
        smallest: height in pixels of the smallest ones, 20 to 150; None for 20.

    Raises:
        UsageError: for another height.
        MissingExtraError: if scikit-learn is not installed.
    """

    names = tuple("0123456789")

    def __init__(self, smallest: int | None = None) -> None:
        low, high = HEIGHTS
        if smallest is not None and not low <= smallest <= high:
            raise UsageError(f"smallest: expected {low} to {high} pixels, got {smallest}")
        self.heights = (smallest or low, high)
        try:
            from sklearn.datasets import load_digits, load_sample_image
        except ImportError as error:
            raise MissingExtraError(
                "Making digits", "scikit-learn", '"rtdetr-ops[demo]"'
            ) from error
        digits = load_digits()
        self._glyphs = (digits.images * 255 / 16).astype(np.uint8)  # [1797, 8, 8]
        self._labels = digits.target.astype(np.int64)
        self._photos = [
            Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")
        ]

    def draw(self, rng: np.random.Generator, *, is_val: bool) -> Scene:
        """See :class:`~rtdetr.data.generators.scene.SceneMaker`."""
        image = draw_ground(rng, (SIDE, SIDE), self._photos)
        total = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MOST + 1))
        boxes: list[Box] = []
        classes: list[int] = []
        for _ in range(total):
            index = self._choose(rng, is_val)
            ink = draw_ink(rng, self._glyphs[index], self.heights)
            place = find_place(rng, ink.shape, boxes)
            if place is not None:
                _paint(rng, image, ink, place)
                boxes.append(place)
                classes.append(int(self._labels[index]))
        return Scene(
            image,
            np.asarray(boxes, dtype=np.int64).reshape(-1, 4),
            np.asarray(classes, dtype=np.int64),
        )

    def _choose(self, rng: np.random.Generator, is_val: bool) -> int:
        """A digit of train or of val."""
        block = int(rng.integers(len(self._glyphs) // HELD_OUT)) * HELD_OUT
        return block if is_val else block + int(rng.integers(1, HELD_OUT))


def draw_ink(rng: np.random.Generator, glyph: Alpha, heights: tuple[int, int] = HEIGHTS) -> Alpha:
    """A digit enlarged, turned, and cut to where its ink is: alpha [h, w]."""
    low, high = np.log(heights)
    height = int(np.exp(rng.uniform(low, high)))
    width = max(8, int(height * rng.uniform(0.7, 1.1)))
    # A border, so that turning cuts nothing off.
    large = Image.fromarray(np.pad(glyph, 2)).resize(
        (width * 3 // 2, height * 3 // 2), Image.Resampling.BICUBIC
    )
    turned = np.asarray(large.rotate(rng.uniform(*ANGLES), Image.Resampling.BICUBIC))
    # Strokes of 8x8 pixels are blurred when they are enlarged; a steeper ramp gives them an edge.
    sharp = ((turned.astype(np.float64) - 90) * 3).clip(0, 255).astype(np.uint8)
    rows, columns = (np.flatnonzero((sharp >= LEAST_INK).any(axis)) for axis in (1, 0))
    return sharp[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def find_place(rng: np.random.Generator, shape: tuple[int, ...], others: list[Box]) -> Box | None:
    """A box of that shape inside the image that covers none of the others too much, or None."""
    height, width = shape
    for _ in range(TRIALS):
        left, top = (int(rng.integers(SIDE - extent + 1)) for extent in (width, height))
        box = (left, top, left + width, top + height)
        if all(_covered(box, other) <= MOST_COVERED for other in others):
            return box
    return None


def _covered(first: Box, second: Box) -> float:
    """The share of the smaller box that lies in the other one."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return max(0, width) * max(0, height) / smaller


def _paint(rng: np.random.Generator, image: Image.Image, ink: Alpha, box: Box) -> None:
    """Put the ink there, in a color that is lighter or darker than the ground by enough to be seen."""
    ground = float(np.asarray(image.crop(box).convert("L")).mean())
    while True:
        red, green, blue = rng.integers(0, 256, 3).tolist()
        if abs(0.299 * red + 0.587 * green + 0.114 * blue - ground) >= LEAST_CONTRAST:
            break
    image.paste((red, green, blue), box, Image.fromarray(ink))
