# SPDX-License-Identifier: Apache-2.0
"""What lies behind the objects: crops of photos, and grounds that are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["crop_photo", "draw_computed", "draw_ground"]

Pixels = npt.NDArray[np.float64]
Size = tuple[int, int]
"""(width, height)."""
PHOTO_SHARE = 0.6
LEAST_CROP = 0.3
"""Of the shorter side of a photo."""
MOST_CONTRAST = 100
"""Steps of 255 in each channel between the two colors of a ground: an object has a single color, and is to be seen."""


def draw_ground(rng: np.random.Generator, size: Size, photos: Sequence[Image.Image]) -> Image.Image:
    """An RGB image of ``size``: part of a photo, or a computed ground."""
    if rng.random() < PHOTO_SHARE:
        return crop_photo(rng, size, photos[int(rng.integers(len(photos)))])
    return draw_computed(rng, size)


def draw_computed(rng: np.random.Generator, size: Size) -> Image.Image:
    """An RGB image of ``size``: a gradient, stripes, checks or clouds."""
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))](rng, size)
    noise = rng.normal(0, rng.uniform(0, 12), (size[1], size[0], 1))
    return Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))


def crop_photo(rng: np.random.Generator, size: Size, photo: Image.Image) -> Image.Image:
    """A part of a photo in the shape of ``size``, enlarged or reduced to it."""
    fit = min(own / asked for own, asked in zip(photo.size, size, strict=True))
    factor = fit * rng.uniform(LEAST_CROP, 1)
    width, height = (max(1, int(asked * factor)) for asked in size)
    left = int(rng.integers(photo.size[0] - width + 1))
    top = int(rng.integers(photo.size[1] - height + 1))
    crop = photo.crop((left, top, left + width, top + height)).resize(size)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _mix(rng: np.random.Generator, weights: Pixels) -> Pixels:
    """Two colors, mixed by weights [h, w] in 0..1."""
    first = rng.uniform(0, 255, 3)
    second = (first + rng.uniform(-MOST_CONTRAST, MOST_CONTRAST, 3)).clip(0, 255)
    mixed: Pixels = first + weights[..., None] * (second - first)
    return mixed


def _gradient(rng: np.random.Generator, size: Size) -> Pixels:
    return _mix(rng, _ramp(rng, size))


def _stripes(rng: np.random.Generator, size: Size) -> Pixels:
    return _mix(rng, (_ramp(rng, size) * rng.integers(3, 25)) % 1.0)


def _checks(rng: np.random.Generator, size: Size) -> Pixels:
    rows, columns = np.mgrid[: size[1], : size[0]] // int(rng.integers(6, min(size) // 3))
    return _mix(rng, ((rows + columns) % 2).astype(np.float64))


def _clouds(rng: np.random.Generator, size: Size) -> Pixels:
    """Noise of a few pixels, enlarged."""
    coarse = rng.integers(0, 256, (int(rng.integers(2, 20)),) * 2, dtype=np.uint8)
    return _mix(rng, np.asarray(Image.fromarray(coarse).resize(size)) / 255.0)


def _ramp(rng: np.random.Generator, size: Size) -> Pixels:
    """0..1 along any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: size[1], : size[0]]
    ramp = np.cos(angle) * columns + np.sin(angle) * rows
    scaled: Pixels = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    return scaled


GROUNDS: tuple[Callable[[np.random.Generator, Size], Pixels], ...] = (
    _gradient,
    _stripes,
    _checks,
    _clouds,
)
