# SPDX-License-Identifier: Apache-2.0
"""Reading one image: a file, a URL, bytes, a Pillow image, an array or a tensor, as RGB and upright."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..errors import DataError, RTDetrError
from ..files import home_path
from .color import Color
from .convert import array_to_rgb, image_to_rgb, tensor_to_rgb, upright
from .download import download
from .names import is_other_url, is_url

__all__ = [
    "LoadedImage",
    "Unreadable",
    "is_loadable",
    "load_image",
    "name_of",
    "reason",
    "regular_file",
]


@dataclass(frozen=True)
class LoadedImage:
    """One image, RGB and upright, and where it came from.

    Args:
        image: the image.
        name: of its source.
        time: of a frame, seconds after the first frame of its video; None for an image.
    """

    image: Image.Image
    name: str
    time: float | None = None


@dataclass(frozen=True)
class Unreadable:
    """A source that gave no image: data, so that the others of a folder still count."""

    name: str
    error: DataError


def load_image(source: Any, *, color: Color = "rgb", name: str | None = None) -> LoadedImage:
    """One image, turned as its EXIF orientation says.

    Args:
        source: a path; an http(s) URL; the bytes of a file, or an open binary file; a Pillow image; an array [H,W,3]
            (or [H,W], or with alpha), uint8 or floating 0..1; a tensor [3,H,W], likewise.
        color: the order of channels in an array or tensor, "rgb" or "bgr" (OpenCV's).
        name: what results and errors call it; by default its path or URL, or "image".

    Raises:
        DataError: if it does not exist, is no image, is broken, or is none of these kinds; the message names it.
    """
    name = name_of(source) if name is None else name
    try:
        return LoadedImage(_read(source, color, name), name)
    except RTDetrError:
        raise
    except Exception as error:
        # Decoders and file systems raise whatever they run into (OSError, SyntaxError, struct.error, ...): the one
        # place where that becomes an error of this image. RTDETR_DEBUG=1 shows the cause.
        raise DataError(f"{name}: {reason(error)}") from error


def is_loadable(source: Any) -> bool:
    """Whether ``source`` is of a kind that :func:`load_image` takes."""
    kinds = (str, os.PathLike, bytes, Image.Image, np.ndarray, torch.Tensor)
    return isinstance(source, kinds) or hasattr(source, "read")


def name_of(source: Any, index: int | None = None) -> str:
    """What results call an image: its path or URL, else "image", with its ``index`` among many."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    file = getattr(source, "filename", "")
    if isinstance(file, str) and file:
        return file
    return "image" if index is None else f"image{index}"


def regular_file(source: str | os.PathLike[str]) -> Path:
    """The path of a file; ``~`` is the home folder.

    Raises:
        DataError: there is none, or it is a folder, or a pipe or device, which may never end.
    """
    if not os.fspath(source):
        raise DataError('expected a path or a URL, got ""')
    if is_other_url(source):
        raise DataError(f"{str(source)[:80]}: expected a path or a URL of http, https or rtsp")
    path = home_path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: {reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{source}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise DataError(f"{source}: is a pipe or device, expected a file")
    return path


def reason(error: Exception) -> str:
    """What went wrong with a source, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not a readable image: its format is not known"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, MemoryError):
        return "not a readable image: it does not fit into memory"
    text = " ".join(str(error).split())
    return f"not a readable image: {text or type(error).__name__}"


def _read(source: Any, color: Color, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return image_to_rgb(upright(source), name)
    if isinstance(source, np.ndarray):
        return array_to_rgb(source, layout="last", color=color, argument=name)
    if isinstance(source, torch.Tensor):
        return tensor_to_rgb(source, color=color, argument=name)
    if not is_loadable(source):
        kind = type(source).__name__
        raise DataError(f"{name}: expected a path, URL, PIL image, array or tensor, got {kind}")
    with Image.open(_file_of(source)) as image:
        return image_to_rgb(upright(image), name)


def _file_of(source: Any) -> Path | io.BytesIO:
    if is_url(source):
        return io.BytesIO(download(source))
    if isinstance(source, str | os.PathLike):
        return regular_file(source)
    return io.BytesIO(source if isinstance(source, bytes) else source.read())
