# SPDX-License-Identifier: Apache-2.0
"""Reading one image: a file, a URL, a Pillow image, an array or a tensor, as RGB and upright."""

from __future__ import annotations

import io
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .color import Color
from .convert import array_to_rgb, image_to_rgb, tensor_to_rgb, upright
from .names import is_url

__all__ = ["LoadedImage", "Unreadable", "download", "load_image", "name_of"]

URL_TIMEOUT_S = 20.0
URL_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LoadedImage:
    """One image, RGB and upright, and where it came from."""

    image: Image.Image
    name: str


@dataclass(frozen=True)
class Unreadable:
    """A source that gave no image: data, so that the others of a folder still count."""

    name: str
    error: DataError


def load_image(source: Any, *, color: Color = "rgb", name: str | None = None) -> LoadedImage:
    """One image, turned as its EXIF orientation says.

    Args:
        source: a path; an http(s) URL; a Pillow image; an array [H,W,3] (or [H,W], or with alpha), uint8 or floating
            0..1; a tensor [3,H,W], likewise.
        color: the order of channels in an array or tensor, "rgb" or "bgr" (OpenCV's).
        name: what results and errors call it; by default its path or URL, or "image".

    Raises:
        DataError: if it does not exist, is no image, is broken, or is none of these kinds; the message names it.
    """
    name = name_of(source) if name is None else name
    if isinstance(source, Image.Image):
        return LoadedImage(_decode(source, name), name)
    if isinstance(source, np.ndarray):
        return LoadedImage(array_to_rgb(source, layout="last", color=color, argument=name), name)
    if isinstance(source, torch.Tensor):
        return LoadedImage(tensor_to_rgb(source, color=color, argument=name), name)
    if is_url(source):
        return LoadedImage(_open(io.BytesIO(download(source)), name), name)
    if isinstance(source, str | os.PathLike):
        return LoadedImage(_open(_existing(Path(source)), name), name)
    raise DataError(
        f"{name}: expected a path, URL, PIL image, array or tensor, got {type(source).__name__}"
    )


def name_of(source: Any, index: int | None = None) -> str:
    """What results call an image: its path or URL, else "image", with its ``index`` among many."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    file = getattr(source, "filename", "")
    if isinstance(file, str) and file:
        return file
    return "image" if index is None else f"image{index}"


def download(url: str, *, timeout: float = URL_TIMEOUT_S, limit: int = URL_MAX_BYTES) -> bytes:
    """The bytes behind an http(s) URL.

    Args:
        url: where they are.
        timeout: seconds that the server may be silent.
        limit: most bytes to take.

    Raises:
        DataError: if the server cannot be reached, refuses, or sends more than ``limit`` bytes.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "rtdetr"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            data: bytes = response.read(limit + 1)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: could not download it: {reason}") from error
    if len(data) > limit:
        raise DataError(f"{url}: larger than {limit // 2**20} MiB; download it and pass its path")
    return data


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected one image")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    return path


def _open(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            return _decode(image, name)
    except DataError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they run into (OSError, SyntaxError, struct.error, ...).
        raise DataError(f"{name}: not a readable image: {_reason(error)}") from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        return image_to_rgb(upright(image), name)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: not a readable image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    return " ".join(str(error).split()) or type(error).__name__
