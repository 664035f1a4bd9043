# SPDX-License-Identifier: Apache-2.0
"""Moves that change an image and its boxes alike: each is drawn, or decided, and then done. n objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..boxes import intersection_and_union
from .annotations import BoolArray
from .sample import BoxArray, Sample

__all__ = ["Window", "crop", "draw_crop", "draw_zoom", "flip", "resize", "sanitize", "zoom_out"]

SIDES = (1.0, 4.0)
SCALES = (0.3, 1.0)
ASPECTS = (0.5, 2.0)
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""IoU that one object at least is to have with the window; 1 leaves the image as it is."""
TRIALS = 40
SMALLEST_SIDE = 1.0
"""Pixels; objects of less are dropped."""


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels; of an image that is cut, or of a canvas where an image is put."""

    left: int
    top: int
    width: int
    height: int


def draw_zoom(rng: np.random.Generator, size: tuple[int, int]) -> Window:
    """A canvas of up to four times the sides of an image (height, width), and where on it the image is."""
    height, width = size
    side = rng.uniform(*SIDES)
    canvas_width, canvas_height = int(width * side), int(height * side)
    x, y = rng.random(2).tolist()
    return Window(
        int((canvas_width - width) * x),
        int((canvas_height - height) * y),
        canvas_width,
        canvas_height,
    )


def zoom_out(sample: Sample, canvas: Window) -> Sample:
    """The image on a black canvas, its left and top corner where the window says."""
    image = Image.new("RGB", (canvas.width, canvas.height))
    image.paste(sample.image, (canvas.left, canvas.top))
    shift = np.asarray([canvas.left, canvas.top] * 2)
    return Sample(image, sample.boxes + shift, sample.classes)


def draw_crop(rng: np.random.Generator, size: tuple[int, int], boxes: BoxArray) -> Window | None:
    """A window that has the center of an object inside, and overlaps with one as much as is drawn; None for all.

    Source: SSD: Single Shot MultiBox Detector (Liu et al., 2016), section 2.2.
    """
    while len(boxes):
        overlap = OVERLAPS[rng.integers(len(OVERLAPS))]
        if overlap >= 1:
            return None
        for _ in range(TRIALS):
            window = _draw_window(rng, size)
            if window is None:
                continue
            inside = centers_inside(boxes, window)
            if inside.any() and _iou(boxes[inside], window).max() >= overlap:
                return window
    return None


def crop(sample: Sample, window: Window) -> Sample:
    """The image inside the window, with the objects whose centers are there, cut at its border."""
    right, bottom = window.left + window.width, window.top + window.height
    image = sample.image.crop((window.left, window.top, right, bottom))
    kept = sample.select(centers_inside(sample.boxes, window))
    shift = np.asarray([window.left, window.top] * 2)
    border = np.asarray([window.width, window.height] * 2)
    return Sample(image, (kept.boxes - shift).clip(0, border), kept.classes)


def centers_inside(boxes: BoxArray, window: Window) -> BoolArray:
    """[n]."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    inside: BoolArray = (
        (window.left < x)
        & (x < window.left + window.width)
        & (window.top < y)
        & (y < window.top + window.height)
    )
    return inside


def flip(sample: Sample) -> Sample:
    """Left and right change places."""
    x1, y1, x2, y2 = sample.boxes.T
    width = sample.image.width
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=1)
    image = sample.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Sample(image, boxes, sample.classes)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at (height, width): bilinear, with antialiasing, without regard to its aspect."""
    height, width = size
    image = sample.image.resize((width, height), Image.Resampling.BILINEAR)
    ratios = np.asarray([width / sample.image.width, height / sample.image.height] * 2)
    return Sample(image, sample.boxes * ratios, sample.classes)


def sanitize(sample: Sample) -> Sample:
    """Without the objects that are narrower or lower than a pixel."""
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return sample.select(sides.min(1, initial=np.inf) >= SMALLEST_SIDE)


def _draw_window(rng: np.random.Generator, size: tuple[int, int]) -> Window | None:
    """A window of any size and place, or None if its aspect is not to be had."""
    height, width = size
    new_width, new_height = (
        int(side * scale)
        for side, scale in zip((width, height), rng.uniform(*SCALES, 2), strict=True)
    )
    x, y = rng.random(2).tolist()
    is_open = new_width > 0 and new_height > 0
    if not is_open or not ASPECTS[0] <= new_width / new_height <= ASPECTS[1]:
        return None
    return Window(
        int((width - new_width) * x), int((height - new_height) * y), new_width, new_height
    )


def _iou(boxes: BoxArray, window: Window) -> BoxArray:
    """[n]."""
    sides = (window.left, window.top, window.left + window.width, window.top + window.height)
    intersection, union = intersection_and_union(boxes, np.asarray(sides, dtype=np.float64))
    iou: BoxArray = intersection / union
    return iou
