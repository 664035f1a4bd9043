# SPDX-License-Identifier: Apache-2.0
"""What light and a camera do to an image: shadow, glare, contrast, blur, noise, grey, compression."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from .patterns import smooth_noise

__all__ = ["EFFECTS", "photograph"]

Draw = Callable[[np.random.Generator, Image.Image], Image.Image]
Pixels = npt.NDArray[np.float32]


def photograph(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The image as a camera may see it; nothing moves."""
    for share, effect in EFFECTS:
        if rng.random() < share:
            image = effect(rng, image)
    return image


def _floats(image: Image.Image) -> Pixels:
    return np.asarray(image, np.float32)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shadow(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Darker toward one side, or in patches."""
    if rng.random() < 0.5:
        shade = smooth_noise(rng, image.size, int(rng.integers(2, 5)))
    else:
        width, height = image.size
        x, y = (
            np.arange(width, dtype=np.float32) / width,
            np.arange(height, dtype=np.float32) / height,
        )
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * (x - 0.5) + (np.sin(angle) * (y - 0.5))[:, None]
        steep = rng.choice((1.0, 1.0, 30.0))  # an edge, as of a hand
        shade = (along * steep + rng.uniform(0.2, 0.8)).clip(0, 1).astype(np.float32)
    light = 1 - np.float32(rng.uniform(0.15, 0.65)) * shade
    return _image(_floats(image) * light[..., None])


def _glare(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Light that a shiny surface throws back: spots and streaks."""
    width, height = image.size
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    light = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.uniform(0, np.pi)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        across, down = x - np.float32(rng.uniform(0, width)), y - np.float32(rng.uniform(0, height))
        long = np.float32(max(image.size) * rng.uniform(0.05, 0.3))
        short = long * np.float32(rng.uniform(0.1, 0.8))
        distance = ((cos * across + sin * down) / long) ** 2 + (
            (cos * down - sin * across) / short
        ) ** 2
        light += np.float32(rng.uniform(60, 190)) * np.exp(-distance)
    return _image(_floats(image) + light[..., None])


def _contrast(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Less of it, and lighter or darker on the whole."""
    factor, middle = rng.uniform(0.3, 0.8), rng.uniform(70, 185)
    table = (middle + (np.arange(256) - 128) * factor).clip(0, 255).astype(int).tolist()
    return image.point(table * 3)


def _color_cast(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The light of a lamp, and a gamma."""
    gains, gamma = rng.uniform(0.8, 1.15, 3), np.exp(rng.normal(0, 0.25))
    levels = (np.arange(256) / 255) ** gamma * 255
    table = np.concatenate([(levels * gain).clip(0, 255) for gain in gains])
    return image.point(table.astype(int).tolist())


def _out_of_focus(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    radius = float(np.exp(rng.uniform(np.log(0.3), np.log(2.0))))
    return image.filter(ImageFilter.GaussianBlur(radius))


def _shaken(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Blurred along a line of up to 7 pixels."""
    line = Image.new("L", (5, 5))
    angle = rng.uniform(0, np.pi)
    for step in np.linspace(-2, 2, 9):
        x, y = round(2 + step * np.cos(angle)), round(2 + step * np.sin(angle))
        line.putpixel((x, y), 1)
    return image.filter(ImageFilter.Kernel((5, 5), np.asarray(line).ravel().tolist()))


def _noise(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    channels = 1 if rng.random() < 0.5 else 3
    noise = rng.standard_normal((image.height, image.width, channels), np.float32)
    return _image(_floats(image) + noise * np.float32(rng.uniform(2, 22)))


def _coarse(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Fewer pixels than it has."""
    factor = rng.uniform(0.45, 0.9)
    small = image.resize(
        [max(1, int(extent * factor)) for extent in image.size], Image.Resampling.BILINEAR
    )
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _grey(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _negative(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    return image.point([255 - level for level in range(256)] * 3)


def _copied(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Black where it is darker than what is around, else white, as by a copier."""
    grey = image.convert("L")
    around = grey.filter(ImageFilter.BoxBlur(rng.uniform(10, 40)))
    is_light = np.asarray(grey, np.int16) > np.asarray(around, np.int16) - rng.uniform(3, 12)
    return Image.fromarray(is_light * np.uint8(255)).convert("RGB")


def _compressed(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(15, 80)))
    return Image.open(buffer).convert("RGB")


EFFECTS: tuple[tuple[float, Draw], ...] = (
    (0.3, _shadow),
    (0.15, _glare),
    (0.4, _color_cast),
    (0.2, _contrast),
    (0.5, _out_of_focus),
    (0.12, _shaken),
    (0.1, _coarse),
    (0.03, _copied),
    (0.5, _noise),
    (0.3, _grey),
    (0.02, _negative),
    (0.4, _compressed),
)
"""How often each is seen, in the order in which light passes through them."""
