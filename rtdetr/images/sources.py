# SPDX-License-Identifier: Apache-2.0
"""Where images come from. What a user passes becomes a list of values, once: images, videos, unreadable things."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import DataError, MissingExtraError
from ..files import exists, home_path, is_file, is_folder
from .color import Color
from .io import (
    LoadedImage,
    Unreadable,
    is_loadable,
    load_image,
    name_of,
    reason,
    regular_file,
)
from .names import has_known_suffix, is_live, is_other_url, is_url, is_video, natural_key
from .video import Video, read_video, require_av

__all__ = [
    "ImageSource",
    "Source",
    "Sources",
    "VideoSource",
    "check_source",
    "find_sources",
    "read_sources",
]


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
    """A video that is not opened yet: a path, a URL that PyAV can open, or the number of a camera."""

    item: Video

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


Source: TypeAlias = ImageSource | VideoSource | Unreadable


@dataclass(frozen=True)
class Sources:
    """What a user passed, item by item.

    Args:
        items: images and videos in order, and what is known to be unreadable, such as a locked folder in a folder.
        is_single: whether the user meant one, and not a list that happens to be short.
    """

    items: tuple[Source, ...]
    is_single: bool


def find_sources(source: Any, *, recursive: bool = False) -> Sources:
    """The images and videos that ``source`` stands for; files of a folder or glob in natural order.

    Args:
        source: an image (path, URL, bytes or open file, Pillow image, array [H,W,3], tensor [3,H,W]), a video (path,
            URL, number of a camera), a folder, a glob, a batch [N,...], values that this function returned, or a list
            or tuple of all these.
        recursive: whether to look into the folders of a folder.

    Raises:
        DataError: if a folder or glob has no image in it, or ``source`` is none of these kinds.
    """
    items = list(_expand(source, recursive))
    is_single = not _is_many(source)
    return Sources(
        tuple(_as_source(item, None if is_single else i) for i, item in enumerate(items)), is_single
    )


def check_source(source: Source) -> None:
    """Look whether there is such a file, of a source that is one of this machine; nothing is read.

    Raises:
        DataError: there is none, or it can be no image or video.
    """
    item = None if isinstance(source, Unreadable) else source.item
    if isinstance(item, str | os.PathLike) and not is_url(item) and not is_live(item):
        regular_file(item)


def read_sources(
    sources: Iterable[Source],
    *,
    color: Color = "rgb",
    vid_stride: int = 1,
    limit: int | None = None,
) -> Iterator[LoadedImage | Unreadable]:
    """Every image and every ``vid_stride``-th frame, read when its turn comes, until ``limit`` could be read."""
    count = 0
    if limit == 0:
        return
    for item in _read_all(sources, color, vid_stride):
        yield item
        count += isinstance(item, LoadedImage)
        if count == limit:
            return


def _read_all(
    sources: Iterable[Source], color: Color, vid_stride: int
) -> Iterator[LoadedImage | Unreadable]:
    for source in sources:
        if isinstance(source, VideoSource):
            yield from source.read(vid_stride)
        else:
            yield source if isinstance(source, Unreadable) else source.read(color)


def _as_source(item: Any, index: int | None) -> Source:
    if isinstance(item, ImageSource | VideoSource | Unreadable):
        return item
    if is_video(item):
        return VideoSource(item)
    if not is_loadable(item):
        kind = type(item).__name__
        raise DataError(
            f"{name_of(item, index)}: expected a path, URL, PIL image, array or tensor, or a list of these, got {kind}"
        )
    return ImageSource(item, name_of(item, index))


def _is_many(source: Any) -> bool:
    """Whether ``source`` stands for a list, however long, and not for a single image or video."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return source.ndim == 4
    if isinstance(source, str | os.PathLike):
        if is_url(source) or is_live(source) or is_other_url(source):
            return False
        is_named = bool(os.fspath(source))  # Path("") would be the current folder
        return is_named and (is_folder(home_path(source)) or _is_glob(source))
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
    return glob.has_magic(str(source)) and not os.path.lexists(home_path(source))


def _files(source: str | os.PathLike[str], recursive: bool) -> list[Path | Unreadable]:
    root = home_path(source)
    locked: list[Unreadable] = []
    paths: Iterable[Path] = _walk(root, recursive, locked)
    if _is_glob(source):
        paths = map(Path, glob.iglob(str(root), recursive=True))  # noqa: PTH207 -- absolute ones too
    files = sorted((path for path in paths if _is_candidate(path)), key=natural_key)
    if locked and not files and locked[0].name == str(root):
        raise locked[0].error
    if not files and not locked:
        raise DataError(f"{source}: no images or videos there")
    return [_needs_av(path) or path for path in files] + locked


def _walk(folder: Path, recursive: bool, locked: list[Unreadable]) -> Iterator[Path]:
    """The files of a folder but hidden ones, which programs leave; folders that may not be read go to ``locked``."""

    def refuse(error: OSError) -> None:
        locked.append(Unreadable(error.filename, DataError(f"{error.filename}: {reason(error)}")))

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        yield from (Path(where, name) for name in names if not name.startswith("."))


def _is_candidate(path: Path) -> bool:
    """Whether it is named as an image or video, and a file, or a link or name that will be told to be broken."""
    return has_known_suffix(path) and (is_file(path) or not exists(path))


def _needs_av(path: Path) -> Unreadable | None:
    """A video among images is no reason to read none of them."""
    if not is_video(path):
        return None
    try:
        require_av()
    except MissingExtraError as error:
        return Unreadable(str(path), DataError(f"{path}: {error}"))
    return None
