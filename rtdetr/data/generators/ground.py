# SPDX-License-Identifier: Apache-2.0
"""What lies behind the objects: crops of photos, and grounds that are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["draw_ground"]

Pixels = npt.NDArray[np.float64]
PHOTO_SHARE = 0.6
LEAST_CROP = 0.3
"""Of the shorter side of a photo."""
MOST_CONTRAST = 100
"""Steps of 255 in each channel between the two colors of a ground: an object has a single color, and is to be seen."""


def draw_ground(rng: np.random.Generator, side: int, photos: Sequence[Image.Image]) -> Image.Image:
    """A square RGB image: part of a photo, or a computed ground."""
    if rng.random() < PHOTO_SHARE:
        return _crop_photo(rng, side, photos[int(rng.integers(len(photos)))])
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))](rng, side)
    noise = rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    return Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))


def _crop_photo(rng: np.random.Generator, side: int, photo: Image.Image) -> Image.Image:
    length = int(min(photo.size) * rng.uniform(LEAST_CROP, 1))
    left, top = (int(rng.integers(extent - length + 1)) for extent in photo.size)
    crop = photo.crop((left, top, left + length, top + length)).resize((side, side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _mix(rng: np.random.Generator, weights: Pixels) -> Pixels:
    """Two colors, mixed by weights [side, side] in 0..1."""
    first = rng.uniform(0, 255, 3)
    second = (first + rng.uniform(-MOST_CONTRAST, MOST_CONTRAST, 3)).clip(0, 255)
    mixed: Pixels = first + weights[..., None] * (second - first)
    return mixed


def _gradient(rng: np.random.Generator, side: int) -> Pixels:
    return _mix(rng, _ramp(rng, side))


def _stripes(rng: np.random.Generator, side: int) -> Pixels:
    return _mix(rng, (_ramp(rng, side) * rng.integers(3, 25)) % 1.0)


def _checks(rng: np.random.Generator, side: int) -> Pixels:
    rows, columns = np.mgrid[:side, :side] // int(rng.integers(6, side // 3))
    return _mix(rng, ((rows + columns) % 2).astype(np.float64))


def _clouds(rng: np.random.Generator, side: int) -> Pixels:
    """Noise of a few pixels, enlarged."""
    coarse = rng.integers(0, 256, (int(rng.integers(2, 20)),) * 2, dtype=np.uint8)
    return _mix(rng, np.asarray(Image.fromarray(coarse).resize((side, side))) / 255.0)


def _ramp(rng: np.random.Generator, side: int) -> Pixels:
    """0..1 along any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:side, :side]
    ramp = np.cos(angle) * columns + np.sin(angle) * rows
    scaled: Pixels = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    return scaled


GROUNDS: tuple[Callable[[np.random.Generator, int], Pixels], ...] = (
    _gradient,
    _stripes,
    _checks,
    _clouds,
)
