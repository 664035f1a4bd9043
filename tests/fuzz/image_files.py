# SPDX-License-Identifier: Apache-2.0
"""Damaged images and videos: read, or refused in a sentence."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from rtdetr.errors import DataError
from rtdetr.images.io import load_image
from rtdetr.images.video import VideoWriter, read_video

from .damage import damage_bytes
from .forked import Case
from .outcomes import Outcome, attempt


def prepare_images(folder: Path) -> Case:
    """Files of each format and mode that Pillow writes here, their bytes changed."""
    sound = list(_image_files())

    def run(seed: int) -> Outcome:
        random = Random(seed)
        suffix, data = random.choice(sound)
        return _read(folder, suffix, damage_bytes(data, random), _load)

    return run


def prepare_videos(folder: Path) -> Case:
    """Short clips, their bytes changed."""
    sound = [(suffix, _clip(folder / f"sound{suffix}")) for suffix in (".mp4", ".mkv", ".avi")]

    def run(seed: int) -> Outcome:
        random = Random(seed)
        suffix, data = random.choice(sound)
        return _read(folder, suffix, damage_bytes(data, random), _play)

    return run


def _read(folder: Path, suffix: str, data: bytes, read: Callable[[Path], None]) -> Outcome:
    file = folder / f"{os.getpid()}{suffix}"
    file.write_bytes(data)
    return attempt(partial(read, file), (DataError,))


def _load(file: Path) -> None:
    image = load_image(file).image
    assert image.mode == "RGB", image.mode


def _play(file: Path) -> None:
    for frame in read_video(file, limit=20):
        assert frame.image.mode == "RGB", frame.image.mode


def _image_files() -> Iterator[tuple[str, bytes]]:
    for suffix, image_format, modes in (
        (".png", "PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        (".jpg", "JPEG", ("RGB", "L", "CMYK")),
        (".tif", "TIFF", ("RGB", "L", "I", "F", "I;16", "CMYK", "1")),
        (".gif", "GIF", ("P", "L")),
        (".bmp", "BMP", ("RGB", "L", "1")),
        (".webp", "WEBP", ("RGB", "RGBA")),
        (".ppm", "PPM", ("RGB", "L")),
        (".tga", "TGA", ("RGB", "RGBA")),
        (".ico", "ICO", ("RGBA",)),
    ):
        for mode in modes:
            yield suffix, _encode(_drawn(mode), image_format)


def _drawn(mode: str) -> Image.Image:
    y, x = np.mgrid[:24, :37]
    gray = ((7 * y + 5 * x) % 256).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(gray.astype(np.float32) / 255)
    return (
        Image.fromarray(gray).convert("RGB").convert(mode)
        if mode != "I"
        else Image.fromarray(gray).convert("I")
    )


def _encode(image: Image.Image, image_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    file = io.BytesIO()
    options = {"exif": exif} if image_format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    image.save(file, image_format, **options)
    return file.getvalue()


def _clip(file: Path) -> bytes:
    with VideoWriter(file) as writer:
        for number in range(12):
            writer.add(_drawn("RGB").resize((64, 48)).rotate(30 * number))
    return file.read_bytes()
