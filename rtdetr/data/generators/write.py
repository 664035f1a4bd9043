# SPDX-License-Identifier: Apache-2.0
"""Scenes as a COCO data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from ...files import atomic_write
from .scene import Scene, SceneMaker

__all__ = ["write_data_set"]

VAL_SHARE = 0.2
QUALITY = 90


def write_data_set(
    folder: Path,
    maker: SceneMaker,
    images: int,
    seed: int,
    *,
    progress: Callable[[Iterable[tuple[str, int]]], Iterable[tuple[str, int]]] = iter,
) -> dict[str, int]:
    """Write ``annotations/instances_train.json``, ``train/*.jpg``, and the same for val; same seed, same bytes.

    Args:
        folder: new, or empty.
        maker: draws the scenes.
        images: of both splits together, at least 2; every fifth goes to val.
        seed: of every random number.
        progress: passes on all images, by split and number.

    Returns:
        Boxes in "train" and in "val".

    Raises:
        UsageError: if there is something in ``folder``, or fewer images are asked for.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new or an empty folder")
    if images < 2:
        raise UsageError(
            f"images: expected at least 2, one to train and one to validate, got {images}"
        )
    val = max(1, round(images * VAL_SHARE))
    counts = {"train": images - val, "val": val}
    documents = {split: _document(maker) for split in counts}
    for split in counts:
        (folder / split).mkdir(parents=True)
    for split, index in progress(
        (split, i) for split, count in counts.items() for i in range(count)
    ):
        rng = np.random.default_rng((seed, split == "val", index))
        scene = maker.draw(rng, is_val=split == "val")
        _add(documents[split], scene, folder / split / f"{index:06}.jpg")
    for split, document in documents.items():
        with atomic_write(folder / "annotations" / f"instances_{split}.json") as path:
            path.write_text(json.dumps(document), encoding="utf-8")
    return {split: len(document["annotations"]) for split, document in documents.items()}


def _document(maker: SceneMaker) -> dict[str, list[dict[str, Any]]]:
    categories = [{"id": index, "name": name} for index, name in enumerate(maker.names, 1)]
    return {"images": [], "annotations": [], "categories": categories}


def _add(document: dict[str, list[dict[str, Any]]], scene: Scene, file: Path) -> None:
    scene.image.save(file, quality=QUALITY)
    image_id = len(document["images"]) + 1
    width, height = scene.image.size
    document["images"].append(
        {"id": image_id, "file_name": file.name, "width": width, "height": height}
    )
    for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
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
