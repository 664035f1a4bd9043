# SPDX-License-Identifier: Apache-2.0
"""Photos and cut-outs that scenes are made of: those of a folder, or those that packages bring."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from PIL import Image

from ...errors import UsageError
from ...files import home_path
from ...images.names import image_suffixes
from .packages import package_folders

__all__ = ["find_images", "hold_out", "load_cut_out", "load_photo", "package_photos"]

LONGEST = 640
"""Pixels of the longer side that a photo is held with."""
LONGEST_CUT_OUT = 256
VAL_SHARE = 0.2
PACKAGE_PHOTOS = {
    "sklearn": "datasets/images/{}.jpg china flower",
    "matplotlib": "mpl-data/sample_data/{}.jpg grace_hopper",
    "skimage": "data/{} brick.png camera.png cell.png chelsea.png coffee.png coins.png grass.png gravel.png "
    "hubble_deep_field.jpg ihc.png moon.png retina.jpg rocket.jpg",
}
"""By package: where its photos are, and those without print."""


def package_photos() -> tuple[str, ...]:
    """Photos in installed packages, which are not imported."""
    paths = []
    for package, entry in PACKAGE_PHOTOS.items():
        pattern, *names = entry.split()
        for root in package_folders(package):
            paths += [root / pattern.format(name) for name in names]
    return tuple(str(path) for path in paths if path.is_file())


def find_images(argument: str, folder: Path) -> tuple[str, ...]:
    """The image files in a folder and the folders in it.

    Raises:
        UsageError: if there are none; it names ``argument``.
    """
    root = home_path(folder)
    paths = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in image_suffixes())
    images = tuple(str(path) for path in paths if path.is_file())
    if not images:
        raise UsageError(f"{argument}: expected a folder with images, found none under {folder}")
    return images


def hold_out(paths: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those for train and those for val, by a hash of their names; one alone is for both."""
    ordered = sorted(
        paths, key=lambda path: (hashlib.sha256(Path(path).name.encode()).digest(), path)
    )
    count = max(1, round(len(paths) * VAL_SHARE)) if len(paths) > 1 else 0
    train, val = tuple(ordered[count:]), tuple(ordered[:count])
    return train, val or train


@functools.lru_cache(maxsize=256)
def load_photo(path: str) -> Image.Image:
    """RGB, at most 640 pixels long."""
    return _load(path, "RGB", LONGEST)


@functools.lru_cache(maxsize=1024)
def load_cut_out(path: str) -> Image.Image:
    """RGBA, at most 256 pixels long."""
    return _load(path, "RGBA", LONGEST_CUT_OUT)


def _load(path: str, mode: str, longest: int) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (longest, longest))
            small: Image.Image = image.convert(mode)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected an image that can be read: {error}") from error
    small.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return small
