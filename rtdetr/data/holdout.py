# SPDX-License-Identifier: Apache-2.0
"""Images held out for validation where a data set does not say which, and images that are on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .annotations import IntArray
from .clean import CleanSplit

__all__ = ["FEWEST_IMAGES", "hold_out", "shared_images"]

FEWEST_IMAGES = 10
"""Of fewer images no tenth can be held out."""


def hold_out(names: Sequence[str], fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Indices of the images to train on, and of those held out; ascending.

    The images with the lowest hash of seed and name are held out: a few more images in a data set move few others, and
    its place on the disk moves none.
    """
    keys = [_hash(name, seed) for name in names]
    count = max(1, round(fraction * len(names)))
    order = sorted(range(len(names)), key=keys.__getitem__)
    return np.asarray(sorted(order[count:])), np.asarray(sorted(order[:count]))


def shared_images(train: CleanSplit, val: CleanSplit) -> list[tuple[str, str]]:
    """Pairs of files in train and val with the same content, one for each such file of val.

    Files are told apart by what the check kept of their contents; those that agree are read.
    """
    parts = [_paths_by_content(split) for split in (train, val)]
    common = set(parts[0]) & set(parts[1])
    digests = [
        {path: _digest(path) for content in common for path in part[content]} for part in parts
    ]
    first = {digest: path for path, digest in reversed(digests[0].items())}
    pairs = [(first[digest], path) for path, digest in digests[1].items() if digest in first]
    return sorted(pairs, key=lambda pair: pair[1])


def _paths_by_content(split: CleanSplit) -> dict[int, list[str]]:
    paths: dict[int, list[str]] = {}
    for index, content in enumerate(split.contents.tolist()):
        if content:
            paths.setdefault(content, []).append(split.annotations.path(index))
    return paths


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 -- odd names stay as they are
        return hashlib.blake2b(file.read()).digest()


def _hash(name: str, seed: int) -> bytes:
    return hashlib.blake2b(
        f"{seed}:{name}".encode("utf-8", "surrogateescape"), digest_size=8
    ).digest()
