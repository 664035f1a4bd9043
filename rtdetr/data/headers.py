# SPDX-License-Identifier: Apache-2.0
"""What an image file tells without decoding a pixel: its size, how it is turned, and which other files it may equal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image

from ..errors import DataError
from ..images.convert import exif_orientation
from ..images.io import load_image, reason
from .header_cache import Header, HeaderCache, Stamp, stamp

__all__ = ["Header", "HeaderFault", "read_header", "read_headers"]

THREADS = 8
CHUNK = 64
SAMPLE = 64
"""Bytes from the middle of a file that hardly two images share."""


@dataclass(frozen=True)
class HeaderFault:
    """Why there is no header: the file is missing, or what is wrong with it."""

    is_missing: bool
    reason: str


def read_headers(
    paths: Iterable[str], *, decode: bool = False, cache: HeaderCache | None = None
) -> list[Header | HeaderFault]:
    """The header of each file.

    Args:
        paths: of the files.
        decode: whether files whose pixels cannot be read are faults too; nothing of this is taken from the cache.
        cache: what was read before, and is written where something new is read.
    """
    known = cache.read() if cache is not None and not decode else {}
    read = partial(_read_many, known=known, decode=decode)
    with ThreadPoolExecutor(THREADS) as pool:
        pairs = [pair for chunk in pool.map(read, _chunks(list(paths))) for pair in chunk]
    seen = {key: header for key, header in pairs if key and isinstance(header, Header)}
    if cache is not None and seen.keys() - known.keys():
        cache.write(seen)
    return [header for _, header in pairs]


def read_header(path: str, *, decode: bool = False) -> Header | HeaderFault:
    """The header of one file, as :func:`read_headers` gives it."""
    return _read_many([path], {}, decode)[0][1]


Result = tuple[Stamp | None, Header | HeaderFault]


def _chunks(paths: list[str]) -> list[list[str]]:
    """What a thread does at a time: one file would cost more to pass on than to read."""
    return [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]


def _read_many(paths: list[str], known: Mapping[Stamp, Header], decode: bool) -> list[Result]:
    results = (_read_one(path, known) for path in paths)
    if not decode:
        return list(results)
    return [
        (key, _decode(path, header)) for path, (key, header) in zip(paths, results, strict=True)
    ]


def _read_one(path: str, known: Mapping[Stamp, Header]) -> Result:
    try:
        state = os.stat(path)  # noqa: PTH116 -- Path costs as much as the call
        if state.st_size == 0:
            return None, HeaderFault(False, "the file is empty (0 bytes)")
        key = stamp(path, state)
        return key, known[key] if key in known else _open(path, state.st_size)
    except FileNotFoundError:
        return None, HeaderFault(True, "no such file")
    except Exception as error:
        # Pillow raises whatever it runs into (OSError, SyntaxError, struct.error, ...).
        return None, HeaderFault(False, reason(error))


def _open(path: str, length: int) -> Header:
    with open(path, "rb") as file, Image.open(file) as image:  # noqa: PTH123 -- odd names stay as they are
        size, orientation = (image.height, image.width), exif_orientation(image)
        file.seek(max(0, length // 2 - SAMPLE // 2))
        return Header(size, orientation, _hash(length, file.read(SAMPLE)))


def _hash(length: int, sample: bytes) -> int:
    data = length.to_bytes(8, "little") + sample
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _decode(path: str, header: Header | HeaderFault) -> Header | HeaderFault:
    if isinstance(header, Header):
        try:
            load_image(path)
        except DataError as error:
            return HeaderFault(False, str(error).removeprefix(f"{path}: "))
    return header
