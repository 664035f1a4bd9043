# SPDX-License-Identifier: Apache-2.0
"""Colors and light, changed at random. Boxes stay.

Source: SSD: Single Shot MultiBox Detector (Liu et al., 2016), with the ranges of RT-DETR's recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

__all__ = ["Distortion", "distort", "draw_distortion"]

BRIGHTNESS = (0.875, 1.125)
CONTRAST = SATURATION = (0.5, 1.5)
HUE = (-0.05, 0.05)
"""In turns of the color wheel."""


@dataclass(frozen=True)
class Distortion:
    """What is changed; None is left as it is.

    Args:
        brightness, contrast, saturation: factors.
        hue: turns of the color wheel.
        contrast_first: whether the contrast changes before saturation and hue, or after them.
        channels: the order of red, green and blue.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    channels: tuple[int, int, int] | None = None


def draw_distortion(rng: np.random.Generator, probability: float = 0.5) -> Distortion:
    """A distortion of which each part happens with ``probability``."""
    ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": HUE}
    factors = {
        name: float(rng.uniform(*bounds)) if rng.random() < probability else None
        for name, bounds in ranges.items()
    }
    is_first = bool(rng.random() < 0.5)
    first, second, third = rng.permutation(3).tolist()
    channels = (first, second, third) if rng.random() < probability else None
    return Distortion(**factors, contrast_first=is_first, channels=channels)


def distort(image: Image.Image, distortion: Distortion) -> Image.Image:
    """An RGB image, changed."""
    if distortion.brightness is not None:
        image = ImageEnhance.Brightness(image).enhance(distortion.brightness)
    if distortion.contrast is not None and distortion.contrast_first:
        image = ImageEnhance.Contrast(image).enhance(distortion.contrast)
    if distortion.saturation is not None:
        image = ImageEnhance.Color(image).enhance(distortion.saturation)
    if distortion.hue is not None:
        image = _turn_hue(image, distortion.hue)
    if distortion.contrast is not None and not distortion.contrast_first:
        image = ImageEnhance.Contrast(image).enhance(distortion.contrast)
    if distortion.channels is not None:
        bands = image.split()
        image = Image.merge("RGB", [bands[index] for index in distortion.channels])
    return image


def _turn_hue(image: Image.Image, turns: float) -> Image.Image:
    """The hue of Pillow is a byte, and the wheel closes as the byte wraps."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(step + int(turns * 255)) % 256 for step in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
