# SPDX-License-Identifier: Apache-2.0
"""Small data sets on disk: twelve images of 64x48 to train on and two to validate, two classes, a box in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
BOX = [8.0, 6.0, 16.0, 12.0]  # x, y, width, height
NAMES = ("helmet", "head")
TRAIN = tuple(f"{index:04}.png" for index in range(12))
VAL = ("val_0.png", "val_1.png")


def draw(
    path: Path, seed: int | str = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any
) -> None:
    """An image that differs from those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(seed).encode()))
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    small.resize(size).save(path, **options)


def coco(names: tuple[str, ...], ids: tuple[int, int] = (1, 2)) -> dict[str, Any]:
    """A document with one box in each image, of both classes in turn."""
    return {
        "images": [
            {"id": 10 + i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": 10 + i,
                "category_id": ids[i % 2],
                "bbox": list(BOX),
                "iscrowd": 0,
            }
            for i in range(len(names))
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, NAMES, strict=True)],
    }


def write_json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def coco_folder(
    root: Path, train: dict[str, Any] | None = None, val: dict[str, Any] | None = None
) -> Path:
    """``annotations/instances_train.json`` and ``train/*.png``, and the same for val."""
    for split, names, document in (("train", TRAIN, train), ("val", VAL, val)):
        write_json(root / "annotations" / f"instances_{split}.json", document or coco(names))
        for name in names:
            draw(root / split / name, name)
    return root


def yolo_folder(root: Path, line: str = "0 .25 .25 .25 .25", first: str | None = None) -> Path:
    """``data.yaml``, ``images/train`` and ``labels/train``; ``first`` is what the first label file of train holds."""
    for split, names in (("train", TRAIN), ("val", VAL)):
        for index, name in enumerate(names):
            draw(root / "images" / split / name, name)
            label = root / "labels" / split / name.replace(".png", ".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            other = f"{index % 2}{line[1:]}\n"
            label.write_text(first if first is not None and name == TRAIN[0] else other)
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\nnc: 2\nnames: [{', '.join(NAMES)}]\n"
    )
    return root


def voc_page(name: str, objects: list[tuple[str, tuple[int, int, int, int]]]) -> str:
    entries = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for label, (x1, y1, x2, y2) in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{entries}</annotation>"


def voc_folder(root: Path) -> Path:
    """``Annotations``, ``JPEGImages``, ``ImageSets/Main``; boxes of the pixels that ``BOX`` covers, from 1."""
    corners = (9, 7, 24, 18)
    for split, names in (("train", TRAIN), ("val", VAL)):
        for index, name in enumerate(names):
            draw(root / "JPEGImages" / name, name)
            page = root / "Annotations" / name.replace(".png", ".xml")
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(voc_page(name, [(NAMES[index % 2], corners)]))
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{Path(name).stem}\n" for name in names))
    return root


def roboflow_folder(root: Path) -> Path:
    for folder, names in (("train", TRAIN), ("valid", VAL)):
        write_json(root / folder / "_annotations.coco.json", coco(names, ids=(0, 1)))
        for name in names:
            draw(root / folder / name, name)
    return root
