# SPDX-License-Identifier: Apache-2.0
"""What the head of an image file tells: its size and how it is turned. No pixel is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from ..errors import DataError
from ..images.convert import exif_orientation
from ..images.io import load_image, reason

__all__ = ["Header", "HeaderFault", "read_headers"]

THREADS = 8


@dataclass(frozen=True)
class Header:
    """One image.

    Args:
        size: (height, width) as stored, pixels.
        orientation: 1..8 as EXIF defines it; 1 is upright.
        bytes: length of the file.
    """

    size: tuple[int, int]
    orientation: int = 1
    bytes: int = 0

    @property
    def is_sideways(self) -> bool:
        """Whether width and height change places as the image is turned."""
        return self.orientation >= 5

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) as viewers show it."""
        return self.size[::-1] if self.is_sideways else self.size


@dataclass(frozen=True)
class HeaderFault:
    """Why there is no header: the file is missing, or what is wrong with it."""

    is_missing: bool
    reason: str


def read_headers(paths: Iterable[str], *, decode: bool = False) -> list[Header | HeaderFault]:
    """The header of each file; with ``decode`` a fault too where its pixels cannot be read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_decode if decode else read_header, paths))


def read_header(path: str) -> Header | HeaderFault:
    """The header of one file."""
    try:
        length = os.stat(path).st_size  # noqa: PTH116 -- Path costs as much as the call
        if length == 0:
            return HeaderFault(False, "the file is empty (0 bytes)")
        with Image.open(path) as image:
            return Header((image.height, image.width), exif_orientation(image), length)
    except FileNotFoundError:
        return HeaderFault(True, "no such file")
    except Exception as error:
        # Pillow raises whatever it runs into (OSError, SyntaxError, struct.error, ...).
        return HeaderFault(False, reason(error))


def _decode(path: str) -> Header | HeaderFault:
    header = read_header(path)
    if isinstance(header, Header):
        try:
            load_image(path)
        except DataError as error:
            return HeaderFault(False, str(error).removeprefix(f"{path}: "))
    return header
