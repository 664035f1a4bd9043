# SPDX-License-Identifier: Apache-2.0
"""A fingerprint changes with what is trained on, and with nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_sets import NAMES, TRAIN, coco, coco_folder, draw, roboflow_folder, write_json
from PIL import Image

from rtdetr.data import ReadOptions, list_changes, load_data

PARTS = ["classes", "train images", "train boxes", "val images", "val boxes"]


def in_train(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        document = coco(TRAIN)
        change(document)
        write_json(root / "annotations" / "instances_train.json", document)

    return apply


def rename_class(root: Path) -> None:
    for file in (root / "annotations").iterdir():
        file.write_text(file.read_text().replace(f'"{NAMES[0]}"', '"hat"'))


def replace_image(root: Path) -> None:
    draw(root / "train" / TRAIN[3], "other")


CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda root: None, []),
    "a note in the json": (
        in_train(lambda d: d.update(info={"contributor": "someone"})), [],
    ),
    "a class by another name": (rename_class, ["classes: 2, with other content"]),
    "a box by a pixel": (
        in_train(lambda d: d["annotations"][3].update(bbox=[9, 6, 16, 12])),
        ["train boxes: 12, with other content"],
    ),
    "a box of the other class": (
        in_train(lambda d: d["annotations"][3].update(category_id=1)),
        ["train boxes: 12, with other content"],
    ),
    "a crowd": (
        in_train(lambda d: d["annotations"][3].update(iscrowd=1)),
        ["train boxes: 12, with other content"],
    ),
    "a box more": (
        in_train(lambda d: d["annotations"].append({"image_id": 10, "category_id": 1, "bbox": [1, 1, 9, 9]})),
        ["train boxes: 12 before, 13 now"],
    ),
    "an image less": (
        in_train(lambda d: (d["images"].pop(), d["annotations"].pop())),
        ["train images: 12 before, 11 now", "train boxes: 12 before, 11 now"],
    ),
    "images in another order": (
        in_train(lambda d: d["images"].insert(0, d["images"].pop())),
        ["train images: 12, with other content", "train boxes: 12, with other content"],
    ),
    "other pixels": (replace_image, ["train images: 12, with other content"]),
    "no val": (
        lambda root: (root / "annotations" / "instances_val.json").unlink(),
        ["val images: 2 before, none now", "val boxes: 2 before, none now"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_changes_are_named(
    change: Callable[[Path], None], expected: list[str], tmp_path: Path
) -> None:
    options = ReadOptions(val_fraction=0)
    before = load_data(coco_folder(tmp_path), options).fingerprint()
    assert list(before) == PARTS
    change(tmp_path)
    after = load_data(tmp_path, options).fingerprint()
    assert list_changes(before, json.loads(json.dumps(after))) == expected


def test_place_and_layout_do_not_count(tmp_path: Path) -> None:
    """The same files and ids in another folder, and as Roboflow lays them out."""
    first = coco_folder(
        tmp_path / "one", coco(TRAIN, (0, 1)), coco(("val_0.png", "val_1.png"), (0, 1))
    )
    shutil.copytree(first, tmp_path / "two" / "deeper")
    paths = (first, tmp_path / "two" / "deeper", roboflow_folder(tmp_path / "three"))
    one, two, three = (load_data(path).fingerprint() for path in paths)
    assert one == two == three


def test_images_from_memory() -> None:
    items = [
        (Image.new("RGB", (20, 10)), {"boxes": [[0, 0, 5, 5 + i]], "labels": [0]}) for i in range(2)
    ]
    options = ReadOptions(val_fraction=0)
    one, two = (load_data(part, options).fingerprint() for part in (items, items[::-1]))
    assert list_changes(one, two) == ["train boxes: 2, with other content"]
