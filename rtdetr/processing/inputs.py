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
from ..images.convert import Layout, array_to_rgb, image_to_rgb, tensor_to_array
from ..images.io import load_image

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InputImage:
    """One image before resizing: an image, or floats 0..1 that stay exact as long as nobody resizes them."""

    image: Image.Image
    exact: npt.NDArray[Any] | None = None  # [3,H,W]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.height, self.image.width

    def pixels(self, size: tuple[int, int], resample: int, factor: float | None) -> Pixels:
        if size == self.size and self.exact is not None:
            return self.exact.astype(np.float32)
        image = self.image
        if size != self.size:
            image = image.resize((size[1], size[0]), resample=Image.Resampling(resample))
        pixels = np.moveaxis(np.asarray(image), 2, 0)
        if factor is None:
            factor = 1.0 if self.exact is None else 1 / 255
        # In double: the product is then the same float32 whoever computes it.
        return np.ascontiguousarray((pixels * np.float64(factor)).astype(np.float32))


def load_images(images: Any, layout: str | None) -> list[InputImage]:
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        images = list(images)
    many = isinstance(images, list | tuple)
    loaded = [_load(image, layout) for image in (images if many else [images])]
    if not loaded:
        raise DataError("images: expected at least one image, got an empty list")
    return loaded


def _load(image: Any, layout: str | None) -> InputImage:
    if isinstance(image, Image.Image):
        return InputImage(image_to_rgb(image))
    if isinstance(image, np.ndarray | torch.Tensor):
        array = tensor_to_array(image) if isinstance(image, torch.Tensor) else image
        where = _layout(array.shape, layout)
        return InputImage(array_to_rgb(array, layout=where), _exact(array, where))
    return InputImage(load_image(image).image)


def _layout(shape: tuple[int, ...], name: str | None) -> Layout:
    if name is not None:
        name = str(getattr(name, "value", name))
        if name not in ("channels_first", "channels_last"):
            raise UsageError(
                f'input_data_format: expected "channels_first" or "channels_last", got {name!r}'
            )
        return "first" if name == "channels_first" else "last"
    return "first" if len(shape) == 3 and shape[0] in (1, 3, 4) else "last"


def _exact(array: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any] | None:
    if not np.issubdtype(array.dtype, np.floating) or array.max() > 1:
        return None
    first = array[None] if array.ndim == 2 else array
    first = np.moveaxis(first, 2, 0) if layout == "last" and array.ndim == 3 else first
    return np.repeat(first, 3, axis=0) if first.shape[0] == 1 else first[:3]
