# SPDX-License-Identifier: Apache-2.0
"""Where images come from. What a user passes becomes a list of two kinds of value, once: images and videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import DataError
from .color import Color
from .io import LoadedImage, Unreadable, load_image, name_of
from .names import IMAGE_SUFFIXES, is_url, is_video, natural_key
from .video import read_video

__all__ = ["ImageSource", "Source", "Sources", "VideoSource", "find_sources", "read_sources"]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """One image that is not read yet: whatever :func:`rtdetr.images.io.load_image` takes, and its name."""

    item: Any
    name: str

    def read(self, color: Color = "rgb") -> LoadedImage | Unreadable:
        """The image; ``Unreadable`` instead of an exception."""
        try:
            return load_image(self.item, color=color, name=self.name)
        except DataError as error:
            return Unreadable(self.name, error)


@dataclass(frozen=True)
class VideoSource:
    """A video that is not opened yet: a path, or a URL that PyAV can open."""

    item: str | os.PathLike[str]

    @property
    def name(self) -> str:
        return str(self.item)

    def read(self, stride: int = 1) -> Iterator[LoadedImage | Unreadable]:
        """Every ``stride``-th frame; last an ``Unreadable`` where the video breaks off.

        Raises:
            MissingExtraError: if PyAV is not installed.
        """
        try:
            yield from read_video(self.item, stride=stride)
        except DataError as error:
            yield Unreadable(self.name, error)


Source: TypeAlias = ImageSource | VideoSource


@dataclass(frozen=True)
class Sources:
    """What a user passed, item by item.

    Args:
        items: images and videos in order.
        is_single: whether the user meant one, and not a list that happens to be short.
    """

    items: tuple[Source, ...]
    is_single: bool


def find_sources(source: Any, *, recursive: bool = False) -> Sources:
    """The images and videos that ``source`` stands for; files of a folder or glob in natural order.

    Args:
        source: an image (path, URL, Pillow image, array [H,W,3], tensor [3,H,W]), a video, a folder, a glob, a batch
            [N,...], values that this function returned, or a list or tuple of all these.
        recursive: whether to look into the folders of a folder.

    Raises:
        DataError: if a folder or glob has no image in it.
    """
    items = list(_expand(source, recursive))
    is_single = not _is_many(source)
    return Sources(
        tuple(_as_source(item, None if is_single else i) for i, item in enumerate(items)), is_single
    )


def read_sources(
    sources: Iterable[Source], *, color: Color = "rgb", vid_stride: int = 1
) -> Iterator[LoadedImage | Unreadable]:
    """Every image and every ``vid_stride``-th frame, read when its turn comes."""
    for source in sources:
        if isinstance(source, VideoSource):
            yield from source.read(vid_stride)
        else:
            yield source.read(color)


def _as_source(item: Any, index: int | None) -> Source:
    if isinstance(item, ImageSource | VideoSource):
        return item
    return VideoSource(item) if is_video(item) else ImageSource(item, name_of(item, index))


def _is_many(source: Any) -> bool:
    """Whether ``source`` stands for a list, however long, and not for a single image or video."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return source.ndim == 4
    if isinstance(source, str | os.PathLike):
        return not is_url(source) and (Path(source).is_dir() or _is_glob(source))
    return isinstance(source, list | tuple)


def _expand(source: Any, recursive: bool) -> Iterator[Any]:
    if isinstance(source, list | tuple):
        for item in source:
            yield from _expand(item, recursive)
    elif not _is_many(source):
        yield source
    elif isinstance(source, np.ndarray | torch.Tensor):
        yield from source
    else:
        yield from _files(source, recursive)


def _is_glob(source: str | os.PathLike[str]) -> bool:
    # A file may have brackets in its name: what exists is meant literally.
    return glob.has_magic(str(source)) and not Path(source).exists()


def _files(source: str | os.PathLike[str], recursive: bool) -> list[Path]:
    if _is_glob(source):
        pattern = str(Path(source).expanduser())
        paths = iter(Path(name) for name in glob.iglob(pattern, recursive=True))  # noqa: PTH207 -- absolute ones too
    else:
        paths = (Path(source).rglob if recursive else Path(source).glob)("*")
    files = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise DataError(
            f"{source}: no images there. Looked for {' '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return sorted(files, key=natural_key)
