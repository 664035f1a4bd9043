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
SAMPLE = 64
"""Bytes from the middle of a file that hardly two images share."""


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

    Files are told apart by their length, then by a sample of their content, and only then by all of it.
    """
    sides = [_known_lengths(train), _known_lengths(val)]
    for read in (_keep, _sample, _digest):
        keys = [{path: read(path, key) for path, key in side.items()} for side in sides]
        common = set(keys[0].values()) & set(keys[1].values())
        sides = [{path: key for path, key in side.items() if key in common} for side in keys]
    first = {key: path for path, key in reversed(sides[0].items())}
    return [(first[key], path) for path, key in sides[1].items()]


Key = tuple[int, bytes]
"""The length of a file, and a hash of what was read of it."""


def _known_lengths(split: CleanSplit) -> dict[str, Key]:
    lengths = enumerate(split.bytes.tolist())
    return {split.annotations.path(index): (length, b"") for index, length in lengths if length}


def _keep(path: str, key: Key) -> Key:
    return key


def _sample(path: str, key: Key) -> Key:
    with open(path, "rb") as file:  # noqa: PTH123 -- odd names stay as they are
        file.seek(max(0, key[0] // 2 - SAMPLE // 2))
        return key[0], file.read(SAMPLE)


def _digest(path: str, key: Key) -> Key:
    with open(path, "rb") as file:  # noqa: PTH123 -- as above
        return key[0], hashlib.blake2b(file.read()).digest()


def _hash(name: str, seed: int) -> bytes:
    return hashlib.blake2b(
        f"{seed}:{name}".encode("utf-8", "surrogateescape"), digest_size=8
    ).digest()
