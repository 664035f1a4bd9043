# SPDX-License-Identifier: Apache-2.0
"""Images as an image processor is handed them, ready to be resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..errors import DataError, UsageError
from ..images.convert import (
    Layout,
    array_to_rgb,
    channels_last,
    image_to_rgb,
    tensor_to_array,
    to_uint8,
)
from ..images.io import load_image

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PixelInput:
    """An image of 8-bit pixels: mode RGB, or RGBX for four channels of which none is transparency."""

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.image.height, self.image.width

    def pixels(self, size: tuple[int, int], resample: int, factor: float | None) -> Pixels:
        """[C,H,W] of this ``size``, multiplied by ``factor``."""
        image = self.image
        if size != self.size:
            image = image.resize((size[1], size[0]), resample=Image.Resampling(resample))
        pixels = np.moveaxis(np.asarray(image), 2, 0)
        # In double: the product is then the same float32 whoever computes it.
        scaled = pixels * np.float64(1 if factor is None else factor)
        return np.ascontiguousarray(scaled.astype(np.float32))


@dataclass(frozen=True)
class FloatInput:
    """Floats [C,H,W], 0..1 or 0..255: exact as long as nobody resizes them, for which they become 8-bit pixels.

    Floats that are neither resized nor rescaled may have any finite value: their owner has normalized them.
    """

    values: npt.NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.values.shape[1], self.values.shape[2]

    def pixels(self, size: tuple[int, int], resample: int, factor: float | None) -> Pixels:
        """[C,H,W] of this ``size``; ``factor`` applies to 0..255, and floats 0..1 without one stay 0..1."""
        low, high = self.values.min(), self.values.max()
        is_exact = size == self.size
        if is_exact and factor is None and np.isfinite([low, high]).all():
            return self.values.astype(np.float32)
        if is_exact and factor is not None and low >= 0 and high <= 1:
            scaled: npt.NDArray[Any] = self.values * np.float64(factor * 255)
            return scaled.astype(np.float32)
        if factor is None and high <= 1:
            factor = 1 / 255
        pixels = PixelInput(_to_image(np.moveaxis(self.values, 0, 2), len(self.values)))
        return pixels.pixels(size, resample, factor)


InputImage = PixelInput | FloatInput


def load_images(images: Any, layout: str | None, channels: int = 3) -> list[InputImage]:
    """One image or many, each with this number of channels, 3 or 4; see ``RTDetrImageProcessor.preprocess``.

    Raises:
        DataError: there is none, or one is no image.
    """
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        images = list(images)
    many = isinstance(images, list | tuple)
    loaded = [_load(image, layout, channels) for image in (images if many else [images])]
    if not loaded:
        raise DataError("images: expected at least one image, got an empty list")
    return loaded


def _load(image: Any, layout: str | None, channels: int) -> InputImage:
    if isinstance(image, Image.Image):
        if channels == 3:
            return PixelInput(image_to_rgb(image))
        image, layout = np.asarray(image), "channels_last"
    if not isinstance(image, np.ndarray | torch.Tensor):
        if channels != 3:
            raise DataError(
                f"images: four channels (image_mean) come from an array, got {type(image).__name__}"
            )
        return PixelInput(load_image(image).image)
    array = tensor_to_array(image) if isinstance(image, torch.Tensor) else image
    pixels = channels_last(array, _layout(array.shape, layout), "images")
    if channels == 4 and pixels.shape[2] != 4:
        raise DataError(
            f"images: expected four channels, as image_mean has, got shape {list(array.shape)}"
        )
    if not np.issubdtype(pixels.dtype, np.floating):
        return PixelInput(_to_image(pixels, channels))
    first = np.moveaxis(pixels, 2, 0)
    return FloatInput(np.repeat(first, 3, axis=0) if len(first) == 1 else first[:channels])


def _to_image(pixels: npt.NDArray[Any], channels: int) -> Image.Image:
    """[H,W,C] as an image of mode RGB or RGBX."""
    if channels == 3:
        return array_to_rgb(pixels, layout="last")
    bytes_of = np.ascontiguousarray(to_uint8(pixels, "images")).tobytes()
    return Image.frombytes("RGBX", (pixels.shape[1], pixels.shape[0]), bytes_of)


def _layout(shape: tuple[int, ...], name: str | None) -> Layout:
    if name is not None:
        name = str(getattr(name, "value", name))
        if name not in ("channels_first", "channels_last"):
            raise UsageError(
                f'input_data_format: expected "channels_first" or "channels_last", got {name!r}'
            )
        return "first" if name == "channels_first" else "last"
    return "first" if len(shape) == 3 and shape[0] in (1, 3, 4) else "last"
