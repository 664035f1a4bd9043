# SPDX-License-Identifier: Apache-2.0
"""What a run was trained on, in a few short texts, so that a run that goes on can tell whether its data changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from .annotations import Annotations, Categories, IntArray

__all__ = ["fingerprint_categories", "fingerprint_split", "list_changes"]

DIGITS = 32
"""Of the hash, hexadecimal."""


def fingerprint_categories(categories: Categories) -> dict[str, str]:
    """The part "classes": names in their order, and ids."""
    pairs = zip(categories.ids, categories.names, strict=True)
    words = (f"{category_id} {name}".encode() for category_id, name in pairs)
    return {"classes": _part(len(categories), words)}


def fingerprint_split(split: str, annotations: Annotations, contents: IntArray) -> dict[str, str]:
    """The parts "train images" and "train boxes" of a split called "train".

    Images are told by the last part of their names, their sizes and the contents of their files: the folder may move.
    Their order counts, since it decides which of them makes which batch.

    Args:
        split: its name.
        annotations: N images.
        contents: [N] hashes of some of each file.
    """
    names = (name.replace("\\", "/").rsplit("/", 1)[-1] for name in annotations.names)
    words = [name.encode("utf-8", "surrogateescape") for name in names]
    sizes = [_bytes(annotations.sizes), _bytes(contents)]
    arrays = (annotations.starts, annotations.boxes, annotations.classes, annotations.crowds)
    return {
        f"{split} images": _part(len(annotations), [*words, *sizes]),
        f"{split} boxes": _part(len(annotations.boxes), [_bytes(array) for array in arrays]),
    }


def list_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs between two fingerprints: ``train boxes: 120 before, 121 now``.

    Where the numbers are the same, ``train images: 12, with other content``.
    """
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [_describe(name, before.get(name), after.get(name)) for name in names]


def _describe(name: str, before: str | None, after: str | None) -> str:
    counts = [part.split()[0] if part else "none" for part in (before, after)]
    if counts[0] == counts[1]:
        return f"{name}: {counts[0]}, with other content"
    return f"{name}: {counts[0]} before, {counts[1]} now"


def _part(count: int, pieces: Iterable[bytes]) -> str:
    """``120 5f0c...``: how many, and a hash of pieces, each with its length so that none runs into the next."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return f"{count} {total.hexdigest()[:DIGITS]}"


def _bytes(array: npt.NDArray[np.generic]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
