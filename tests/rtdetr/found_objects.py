# SPDX-License-Identifier: Apache-2.0
"""A data set whose boxes are near to what a detector finds: its AP is neither 0 nor 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import drawn
from tiny_detector import NAMES, tiny_detector

from rtdetr import RTDETR

SIDES = [(60, 40), (90, 200), (128, 96), (300, 70), (64, 64)]
"""(width, height) of its images."""

FIRST_ID = 10
"""Of the categories."""


def wide_detector() -> RTDETR:
    """The tiny detector, whose boxes are a fraction of a pixel wide, with wider ones."""
    detector = tiny_detector()
    with torch.no_grad():
        detector.model.bbox_embed[-1].layers[-1].bias += torch.tensor([0.0, 0.0, 4.0, 0.0])
    return detector


def write_data_set(detector: RTDETR, root: Path, size: tuple[int, int]) -> Path:
    """A folder in COCO's layout; ids of images go down, some boxes are crowds, and one image has none."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).mkdir()
        document = _annotate(detector, root / split, size, seed=len(split))
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


def _annotate(detector: RTDETR, folder: Path, size: tuple[int, int], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for index, (width, height) in enumerate(SIDES):
        path = folder / f"{index}.{('png', 'jpg')[index % 2]}"
        drawn(height, width, seed=index + seed).save(path)
        image = {"id": 90 - index, "width": width, "height": height}
        images.append(image | {"file_name": path.name})
        found = detector(path, threshold=0, imgsz=size)[:6]
        for one in [] if index == 3 else found:
            corners = np.asarray(one.box).reshape(2, 2)
            sides = np.maximum(corners[1] - corners[0], 2)
            low = corners[0] + rng.uniform(-0.15, 0.15, 2) * sides
            low = low.clip(0, [width - 2, height - 2])
            sides = np.minimum(sides, [width, height] - low)
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": 90 - index,
                    "category_id": FIRST_ID + one.label,
                    "bbox": [*low, *sides],
                    "area": sides.prod(),
                    "iscrowd": int(len(entries) % 7 == 6),
                }
            )
    categories = [{"id": FIRST_ID + index, "name": name} for index, name in NAMES.items()]
    return {"images": images, "annotations": entries, "categories": categories}
