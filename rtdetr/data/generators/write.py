# SPDX-License-Identifier: Apache-2.0
"""Scenes as a COCO data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...files import atomic_write
from .pool import map_in_processes
from .scene import SceneMaker, draw_scene

__all__ = ["write_data_set"]

VAL_SHARE = 0.2
QUALITY = 90

Key = tuple[str, int]
"""Split and number of an image."""


@dataclass(frozen=True)
class Written:
    """What the annotations say of an image.

    Args:
        split: "train" or "val".
        name: of the file.
        size: (width, height).
        boxes: xyxy in pixels.
        classes: of the boxes.
    """

    split: str
    name: str
    size: tuple[int, int]
    boxes: list[list[int]]
    classes: list[int]


@dataclass(frozen=True)
class Writer:
    """Draws an image and writes it, in any process."""

    folder: Path
    maker: SceneMaker
    seed: int

    def __call__(self, key: Key) -> Written:
        split, index = key
        scene = draw_scene(self.maker, self.seed, index, is_val=split == "val")
        name = f"{index:06}.jpg"
        scene.image.save(self.folder / split / name, quality=QUALITY)
        return Written(split, name, scene.image.size, scene.boxes.tolist(), scene.classes.tolist())


def write_data_set(
    folder: Path,
    maker: SceneMaker,
    images: int,
    seed: int,
    *,
    workers: int = 0,
    progress: Callable[[Iterable[Written]], Iterable[Written]] = iter,
) -> dict[str, int]:
    """Write ``annotations/instances_train.json``, ``train/*.jpg``, and the same for val; same seed, same bytes.

    Args:
        folder: new, or empty.
        maker: draws the scenes.
        images: of both splits together, at least 2; every fifth goes to val.
        seed: of every random number, at least 0.
        workers: processes, which change no byte; 0 draws in this one.
        progress: passes on all images that are written.

    Returns:
        Boxes in "train" and in "val".

    Raises:
        UsageError: if there is something in ``folder``, or fewer images, or less than no processes, are asked for.
    """
    _check(folder, images, seed, workers)
    val = max(1, round(images * VAL_SHARE))
    counts = {"train": images - val, "val": val}
    documents = {split: _document(maker) for split in counts}
    for split in counts:
        (folder / split).mkdir(parents=True)
    keys = [(split, index) for split, count in counts.items() for index in range(count)]
    for written in progress(map_in_processes(Writer(folder, maker, seed), keys, workers)):
        _add(documents[written.split], written)
    for split, document in documents.items():
        with atomic_write(folder / "annotations" / f"instances_{split}.json") as path:
            path.write_text(json.dumps(document), encoding="utf-8")
    return {split: len(document["annotations"]) for split, document in documents.items()}


def _check(folder: Path, images: int, seed: int, workers: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new or an empty folder")
    if images < 2:
        raise UsageError(
            f"images: expected at least 2, one to train and one to validate, got {images}"
        )
    for name, number in (("seed", seed), ("workers", workers)):
        if number < 0:
            raise UsageError(f"{name}: expected a number of at least 0, got {number}")


def _document(maker: SceneMaker) -> dict[str, list[dict[str, Any]]]:
    categories = [{"id": index, "name": name} for index, name in enumerate(maker.names, 1)]
    return {"images": [], "annotations": [], "categories": categories}


def _add(document: dict[str, list[dict[str, Any]]], image: Written) -> None:
    image_id = len(document["images"]) + 1
    width, height = image.size
    document["images"].append(
        {"id": image_id, "file_name": image.name, "width": width, "height": height}
    )
    for (x1, y1, x2, y2), label in zip(image.boxes, image.classes, strict=True):
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
        )
