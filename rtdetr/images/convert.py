# SPDX-License-Identifier: Apache-2.0
"""Whatever people call an image, as an RGB image of Pillow: the one place where pixels are interpreted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image

from ..errors import DataError
from .color import Color, find_color

Layout = Literal["first", "last"]

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""

EXIF_CONTAINERS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Where Pillow keeps what an orientation is read from."""


def image_to_rgb(image: Image.Image, argument: str = "images") -> Image.Image:
    """A Pillow image of any mode in mode RGB, same size; alpha is dropped, not blended.

    Raises:
        DataError: for 32-bit integers outside 0..65535, or floats outside 0..1.
    """
    if image.mode == "RGB":
        return image
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image.convert("RGB")
    pixels = np.asarray(image)
    # Mode I holds 8-bit values and 16-bit ones alike; the modes I;16 say which.
    is_wide = pixels.min() >= 0 and 255 < pixels.max() <= 65535
    if image.mode != "F" and (image.mode != "I" or is_wide):
        # Pillow clips 16 bits to 8 instead of scaling them: everything above 255 would be white.
        pixels = pixels >> 8
    return array_to_rgb(pixels, layout="last", argument=argument)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, as viewers show it; as stored where that cannot be read."""
    image.load()  # what is wrong with the pixels is an error; what is wrong with the metadata is not
    method = UPRIGHT.get(exif_orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    for container in EXIF_CONTAINERS:
        # Nobody may turn it a second time. Pillow would rewrite the EXIF, and fail for a malformed tag in it.
        turned.info.pop(container, None)
    return turned


def exif_orientation(image: Image.Image) -> int:
    """How the camera was held, 1..8 as EXIF defines it; 1, upright, where that cannot be read. No pixel is decoded."""
    try:
        # The method of PNG images decodes the pixels, to look behind them too.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:
        # Parsers of metadata raise whatever they run into (struct.error, SyntaxError, ...).
        return 1
    return value if isinstance(value, int) and value in (1, *UPRIGHT) else 1


def array_to_rgb(
    array: npt.NDArray[Any], *, layout: Layout, color: Color = "rgb", argument: str = "images"
) -> Image.Image:
    """One array [H,W], [H,W,C] (layout "last") or [C,H,W] (layout "first") as an RGB image.

    Args:
        array: integers 0..255, bool, or floating 0..1; C is 1 (gray), 3 or 4 (the fourth is dropped).
        layout: where the channels are.
        color: order of the first three channels.
        argument: the name errors give to the array.

    Raises:
        DataError: for any other shape, dtype or range.
        UsageError: for any other ``color``.
    """
    color = find_color(color)
    pixels = to_uint8(channels_last(array, layout, argument), argument)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    pixels = pixels[:, :, 2::-1] if color == "bgr" else pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(pixels))


def tensor_to_rgb(
    tensor: torch.Tensor, *, color: Color = "rgb", argument: str = "images"
) -> Image.Image:
    """One tensor [C,H,W] or [H,W], integers 0..255 or floating 0..1, on any device, as an RGB image."""
    return array_to_rgb(tensor_to_array(tensor), layout="first", color=color, argument=argument)


def tensor_to_array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The values on the host; 16-bit floats widened, since NumPy has no bfloat16."""
    tensor = tensor.detach().cpu()
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def channels_last(array: npt.NDArray[Any], layout: Layout, argument: str) -> npt.NDArray[Any]:
    pixels = array[:, :, None] if array.ndim == 2 else array
    if array.ndim == 3 and layout == "first":
        pixels = np.moveaxis(array, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size:
        return pixels
    expected = "[C,H,W]" if layout == "first" else "[H,W,C]"
    raise DataError(
        f"{argument}: expected an image [H,W] or {expected} with 1, 3 or 4 channels, got shape {list(array.shape)}"
    )


def to_uint8(pixels: npt.NDArray[Any], argument: str) -> npt.NDArray[Any]:
    """Integers as they are; floats 0..1 rounded to 256 steps, so an image divided by 255 comes back exactly."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.float32)
    is_integer = np.issubdtype(pixels.dtype, np.integer)
    if not is_integer and not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"{argument}: expected dtype uint8 or floating, got {pixels.dtype}")
    low, high = pixels.min(), pixels.max()
    if is_integer and (low < 0 or high > 255):
        raise DataError(f"{argument}: expected integers within 0..255, got {low}..{high}")
    if is_integer:
        return pixels.astype(np.uint8)
    if low >= 0 and high <= 1:
        steps: npt.NDArray[Any] = np.rint(pixels.astype(np.float32) * np.float32(255))
        return steps.astype(np.uint8)
    if low >= 0 and high <= 255 and bool(np.all(pixels == np.rint(pixels))):
        return pixels.astype(np.uint8)
    raise DataError(
        f"{argument}: expected floats within 0..1 (or whole numbers within 0..255), got {low:g}..{high:g}"
    )
