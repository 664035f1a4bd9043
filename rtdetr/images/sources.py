# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: paths, URLs, folders, globs, Pillow pictures, arrays, tensors, and lists of these."""

from __future__ import annotations

import glob
import io
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .convert import Color, array_to_rgb, picture_to_rgb, tensor_to_rgb, upright
from .names import IMAGE_SUFFIXES, is_url, natural_key

URL_TIMEOUT_S = 20.0
URL_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Picture:
    """One picture, RGB and upright, and where it came from."""

    image: Image.Image
    name: str


@dataclass(frozen=True)
class Unreadable:
    """A source that gave no picture: data, so that the others of a folder still count."""

    name: str
    error: DataError


def is_many(source: Any) -> bool:
    """Whether ``source`` stands for a list of pictures, however long, and not for a single one."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return source.ndim == 4
    if isinstance(source, str | os.PathLike):
        return not is_url(source) and (Path(source).is_dir() or _is_glob(source))
    return isinstance(source, list | tuple)


def expand(source: Any, *, recursive: bool = False) -> list[Any]:
    """The single sources that ``source`` stands for: files of a folder or glob in natural order, items of a list.

    Args:
        source: anything ``load_picture`` takes, a folder, a glob, a batch [N,...], or a list or tuple of all these.
        recursive: whether to look into the folders of a folder.

    Raises:
        DataError: if a folder or glob has no picture in it.
    """
    if isinstance(source, list | tuple):
        return [single for item in source for single in expand(item, recursive=recursive)]
    if not is_many(source):
        return [source]
    if isinstance(source, np.ndarray | torch.Tensor):
        return list(source)
    return list(_files(source, recursive))


def pictures(
    source: Any, *, color: Color = "rgb", recursive: bool = False
) -> Iterator[Picture | Unreadable]:
    """Every picture of ``source``, read when its turn comes; what cannot be read is there as ``Unreadable``."""
    many = is_many(source)
    for index, single in enumerate(expand(source, recursive=recursive)):
        name = _name(single, index if many else None)
        try:
            yield load_picture(single, color=color, name=name)
        except DataError as error:
            yield Unreadable(name, error)


def load_picture(source: Any, *, color: Color = "rgb", name: str | None = None) -> Picture:
    """One picture, turned as its EXIF orientation says.

    Args:
        source: a path; an http(s) URL; a Pillow picture; an array [H,W,3] (or [H,W], or with alpha), uint8 or floating
            0..1; a tensor [3,H,W], likewise.
        color: the order of channels in an array or tensor, "rgb" or "bgr" (OpenCV's).
        name: what results and errors call it; by default its path or URL, or "image".

    Raises:
        DataError: if it does not exist, is no picture, is broken, or is none of these kinds; the message names it.
    """
    name = _name(source, None) if name is None else name
    if isinstance(source, Image.Image):
        return Picture(_decoded(source, name), name)
    if isinstance(source, np.ndarray):
        return Picture(array_to_rgb(source, layout="last", color=color, argument=name), name)
    if isinstance(source, torch.Tensor):
        return Picture(tensor_to_rgb(source, color=color, argument=name), name)
    if is_url(source):
        return Picture(_opened(io.BytesIO(download(source)), name), name)
    if isinstance(source, str | os.PathLike):
        return Picture(_opened(_existing(Path(source)), name), name)
    raise DataError(
        f"{name}: expected a path, URL, PIL picture, array or tensor, got {type(source).__name__}"
    )


def download(url: str, *, timeout: float = URL_TIMEOUT_S, limit: int = URL_MAX_BYTES) -> bytes:
    """The bytes behind an http(s) URL.

    Raises:
        DataError: if the server cannot be reached or says no, or sends more than ``limit`` bytes.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "rtdetr"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            data: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: could not download it: {reason}") from error
    if len(data) > limit:
        raise DataError(f"{url}: larger than {limit // 2**20} MiB; download it and pass its path")
    return data


def _name(source: Any, index: int | None) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    file = getattr(source, "filename", "")
    if isinstance(file, str) and file:
        return file
    return "image" if index is None else f"image{index}"


def _is_glob(source: str | os.PathLike[str]) -> bool:
    # A file may have brackets in its name: what exists is meant literally.
    return glob.has_magic(str(source)) and not Path(source).exists()


def _files(source: str | os.PathLike[str], recursive: bool) -> list[Path]:
    if _is_glob(source):
        pattern = str(Path(source).expanduser())
        found = iter(Path(name) for name in glob.iglob(pattern, recursive=True))  # noqa: PTH207 -- absolute ones too
    else:
        found = (Path(source).rglob if recursive else Path(source).glob)("*")
    files = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise DataError(
            f"{source}: no pictures there. Looked for {' '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return sorted(files, key=natural_key)


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected one picture")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    return path


def _opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return _decoded(picture, name)
    except DataError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they run into (OSError, SyntaxError, struct.error, ...).
        raise DataError(f"{name}: not a readable picture: {_reason(error)}") from error


def _decoded(picture: Image.Image, name: str) -> Image.Image:
    try:
        return picture_to_rgb(upright(picture))
    except Exception as error:
        raise DataError(f"{name}: not a readable picture: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    return " ".join(str(error).split()) or type(error).__name__
