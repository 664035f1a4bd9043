# SPDX-License-Identifier: Apache-2.0
"""The known layouts are found by looking, and say the same of the same images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import (
    BOX,
    HEIGHT,
    NAMES,
    TRAIN,
    VAL,
    WIDTH,
    coco,
    coco_folder,
    draw,
    roboflow_folder,
    voc_folder,
    voc_page,
    write_json,
    yolo_folder,
)
from PIL import Image

from rtdetr.data import DataSplits, ReadOptions, check_data, load_data
from rtdetr.errors import DataError

XYXY = [BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]]


def yolo_of_box(root: Path) -> Path:
    values = ((BOX[0] + 8) / WIDTH, (BOX[1] + 6) / HEIGHT, BOX[2] / WIDTH, BOX[3] / HEIGHT)
    return yolo_folder(root, "0 " + " ".join(map(str, values)))


def voc_years(root: Path) -> Path:
    voc_folder(root / "VOC2007")
    return root


def voc_beside(root: Path) -> Path:
    voc_folder(root / "both")
    for split, names in (("train", TRAIN), ("valid", VAL)):
        (root / split).mkdir()
        for name in names:
            page = name.replace(".png", ".xml")
            (root / "both" / "JPEGImages" / name).rename(root / split / name)
            (root / "both" / "Annotations" / page).rename(root / split / page)
    return root


def coco_file(root: Path) -> Path:
    return coco_folder(root) / "annotations" / "instances_train.json"


def coco_flat(root: Path) -> Path:
    coco_folder(root)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").rename(root / f"{split}.json")
        (root / "images").mkdir(exist_ok=True)
        (root / split).rename(root / "images" / split)
    return root


def coco_years(root: Path) -> Path:
    coco_folder(root)
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}.json"
        file.rename(file.with_name(f"instances_{split}2017.json"))
        (root / split).rename(root / f"{split}2017")
    return root


def yolo_yaml(root: Path) -> Path:
    return yolo_of_box(root) / "data.yaml"


def yolo_roboflow(root: Path) -> Path:
    """Their exports name the folder above."""
    yolo_of_box(root)
    for split in ("train", "val"):
        (root / split).mkdir()
        for kind in ("images", "labels"):
            (root / kind / split).rename(root / split / kind)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../val/images\nnames: {0: helmet, 1: head}\n"
    )
    return root


def yolo_lists(root: Path) -> Path:
    """Absolute, relative to the root, and relative to the text itself."""
    yolo_of_box(root)
    lines = [
        str(root / "images/train" / name) if i % 2 else f"images/train/{name}"
        for i, name in enumerate(TRAIN)
    ]
    (root / "train.txt").write_text("\n".join(lines))
    (root / "val.txt").write_text("\n".join(f"./images/val/{name}" for name in VAL))
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [helmet, head]\n")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "coco": coco_folder,
    "coco flat": coco_flat,
    "coco with years": coco_years,
    "roboflow": roboflow_folder,
    "yolo": yolo_of_box,
    "yolo yaml": yolo_yaml,
    "yolo of roboflow": yolo_roboflow,
    "yolo lists": yolo_lists,
    "voc": voc_folder,
    "voc with years": voc_years,
    "voc beside": voc_beside,
}


def check_usual(splits: DataSplits) -> None:
    assert [f for f in splits.report if f.severity == "error"] == []
    for split, files in ((splits.train, TRAIN), (splits.val, VAL)):
        assert split is not None
        held = split.annotations
        assert [Path(held.path(i)).name for i in range(len(held))] == list(files)
        assert all(Path(held.path(i)).is_file() for i in range(len(held)))
        assert held.sizes.tolist() == [[HEIGHT, WIDTH]] * len(files)
        assert held.counts().tolist() == [1] * len(files)
        np.testing.assert_allclose(held.boxes, [XYXY] * len(files), atol=1e-4)
        names = [held.categories.names[label] for label in held.classes]
        assert names == [NAMES[i % 2] for i in range(len(files))]


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_layout(make: Callable[[Path], Path], tmp_path: Path) -> None:
    check_usual(load_data(make(tmp_path)))


def test_one_json_holds_some_images_out(tmp_path: Path) -> None:
    splits = load_data(coco_file(tmp_path), ReadOptions(val_fraction=0.25))
    assert splits.train is not None
    assert splits.val is not None
    assert (len(splits.train), len(splits.val)) == (9, 3)
    names = [*splits.train.annotations.names, *splits.val.annotations.names]
    assert sorted(names) == list(TRAIN)


def test_json_for_each_split(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    files = {split: root / f"annotations/instances_{split}.json" for split in ("train", "val")}
    check_usual(load_data(files))


def test_unknown_layout_shows_the_known_ones(tmp_path: Path) -> None:
    draw(tmp_path / "some" / "1.png")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path)
    text = str(caught.value)
    assert "Expected one of these" in text
    for line in ("_annotations.coco.json", "data.yaml", "instances_train.json", "ImageSets/Main"):
        assert line in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["nowhere", "9" * 400, "\0"], ids=["short", "long", "zero"])
def test_no_such_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load_data(tmp_path / name)


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (90, 3), (-5, 2**40)], ids=str)
def test_any_category_ids(ids: tuple[int, int], tmp_path: Path) -> None:
    splits = load_data(coco_folder(tmp_path, coco(TRAIN, ids), coco(VAL, ids)))
    check_usual(splits)
    assert splits.train is not None
    assert splits.train.annotations.categories.ids == ids
    assert splits.train.annotations.categories.names == NAMES


def test_whole_numbers_with_a_point(tmp_path: Path) -> None:
    """As a table with gaps writes its ids."""
    train = coco(TRAIN)
    for entry in train["images"]:
        entry["id"] = float(entry["id"])
    for entry in train["annotations"]:
        entry["category_id"] = float(entry["category_id"])
    check_usual(load_data(coco_folder(tmp_path, train)))


def test_val_is_numbered_as_train(tmp_path: Path) -> None:
    val = coco(VAL, (1, 2))
    val["categories"].reverse()
    splits = load_data(coco_folder(tmp_path, val=val))
    check_usual(splits)
    assert [finding.kind for finding in splits.report] == ["other-category-ids"]


def test_images_without_boxes_and_crowds_stay(tmp_path: Path) -> None:
    train = coco(TRAIN)
    del train["annotations"][0]
    train["annotations"][0]["iscrowd"] = 1
    splits = load_data(coco_folder(tmp_path, train))
    assert splits.train is not None
    held = splits.train.annotations
    assert held.counts().tolist() == [0, *[1] * 11]
    assert held.crowds.tolist() == [True, *[False] * 10]
    assert [finding.kind for finding in splits.report] == ["crowd-only"]


def test_images_without_objects_are_left_out_of_train_on_request(tmp_path: Path) -> None:
    train, val = coco(TRAIN), coco(VAL)
    del train["annotations"][0]
    train["annotations"][0]["iscrowd"] = 1
    del val["annotations"][0]
    splits = load_data(coco_folder(tmp_path, train, val), ReadOptions(no_empty=True))
    assert splits.train is not None
    assert splits.val is not None
    assert list(splits.train.annotations.names) == list(TRAIN[2:])
    assert len(splits.train.contents) == 10
    assert len(splits.val) == 2
    (note,) = (finding for finding in splits.report if finding.kind == "empty-image")
    assert note.sentence == "train: 2 images without an object to learn (first: 0000.png); left out"


ODD_NAMES = ("deep/er/1.png", "win\\dows\\2.png", "a b/ü 3.png", "per%20cent.png", "#4 (1).PNG")


def test_odd_names(tmp_path: Path) -> None:
    names = (*ODD_NAMES, *TRAIN[len(ODD_NAMES) :])
    for name in ODD_NAMES:
        draw(tmp_path / "train" / name.replace("\\", "/"), name)
    splits = load_data(coco_folder(tmp_path, coco(names)))
    assert splits.train is not None
    assert all(os.path.isfile(splits.train.image(i)) for i in range(12))  # noqa: PTH113


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = yolo_of_box(tmp_path)
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        old = root / kind / "train" / TRAIN[0].replace(".png", suffix)
        os.rename(os.fsencode(old), os.fsencode(old.parent) + b"/caf\xe9" + suffix.encode())  # noqa: PTH104
    splits = load_data(root)
    assert splits.train is not None
    paths = [os.fsencode(splits.train.image(i)) for i in range(12)]
    assert sum(path.endswith(b"/caf\xe9.png") for path in paths) == 1
    assert splits.train.annotations.counts().tolist() == [1] * 12


def test_sequence_of_pairs() -> None:
    items = [
        (Image.new("RGB", (WIDTH, HEIGHT), (i, 0, 0)), {"boxes": [XYXY], "class_labels": [i % 2]})
        for i in range(12)
    ]
    splits = load_data(iter(items), ReadOptions(val_fraction=0.25), names=NAMES)
    assert splits.train is not None
    assert splits.val is not None
    for split in (splits.train, splits.val):
        held = split.annotations
        assert held.sizes.tolist() == [[HEIGHT, WIDTH]] * len(held)
        for index in range(len(held)):
            original = int(held.names[index].split()[1])
            assert split.image(index) is items[original][0]
            assert held.classes[held.of(index)].tolist() == [original % 2]


def test_sequence_of_tensors() -> None:
    items = [
        (
            torch.full((3, HEIGHT, WIDTH), index, dtype=torch.uint8),
            {"boxes": torch.tensor([XYXY]), "labels": torch.tensor([index % 2]), "image_id": torch.tensor([index])},
        )
        for index in range(12)
    ]  # fmt: skip
    splits = load_data({"train": items, "val": items[:2]})
    assert splits.train is not None
    assert splits.train.annotations.boxes.tolist() == [XYXY] * 12
    assert splits.train.annotations.image_ids.tolist() == list(range(12))
    assert splits.train.annotations.categories.names == ("0", "1")


def test_sequence_of_paths_is_read_by_its_heads(tmp_path: Path) -> None:
    """Files that are cut off have their sizes all the same; with ``decode`` they are found out."""
    for name in TRAIN:
        draw(tmp_path / name, name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-400])
    items = [(tmp_path / name, {"boxes": [XYXY], "labels": [0]}) for name in TRAIN]
    items[3] = (str(items[3][0]), items[3][1])
    splits = load_data({"train": items, "val": items[:1]})
    assert splits.train is not None
    assert splits.train.annotations.sizes.tolist() == [[HEIGHT, WIDTH]] * 12
    assert list(splits.train.annotations.names) == [str(tmp_path / name) for name in TRAIN]
    (finding, *_) = check_data(items, ReadOptions(decode=True)).report
    assert (finding.kind, finding.count, finding.first) == (
        "unreadable-image",
        12,
        str(items[0][0]),
    )


def test_sequence_with_an_image_that_is_none(tmp_path: Path) -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    items = [(image, {"boxes": [XYXY], "labels": [0]}) for _ in range(12)]
    items[4] = (np.zeros(3), items[4][1])
    items[7] = (tmp_path / "lost.png", items[7][1])  # type: ignore[assignment]
    report = check_data(items).report
    sentences = {finding.kind: finding.sentence for finding in report.failures()}
    assert sentences["unreadable-image"].startswith(
        "train: 1 of 12 images cannot be read (first: image 4: "
    )
    assert (
        f"1 of 12 images not found (first: {tmp_path / 'lost.png'})" in sentences["missing-image"]
    )
    splits = load_data(items, ReadOptions(skip_missing=True))
    assert splits.train is not None
    assert splits.val is not None
    assert len(splits.train) + len(splits.val) == 10


def test_voc_counts_from_one_unless_a_box_begins_at_zero(tmp_path: Path) -> None:
    root = voc_folder(tmp_path)
    (root / "Annotations" / "0000.xml").write_text(
        voc_page("0000.png", [(NAMES[0], (0, 0, 24, 18))])
    )
    splits = load_data(root)
    assert splits.train is not None
    assert splits.train.annotations.boxes[1].tolist() == [9, 7, 24, 18]
    assert [finding.kind for finding in splits.report] == ["counted-from-zero"]


def test_voc_image_with_another_name_in_its_xml(tmp_path: Path) -> None:
    root = voc_folder(tmp_path)
    (root / "Annotations" / "0000.xml").write_text(
        voc_page("IMG_77.jpg", [(NAMES[0], (9, 7, 24, 18))])
    )
    check_usual(load_data(root))


def test_held_out_images_depend_on_seed_and_names_alone(tmp_path: Path) -> None:
    def held_out(folder: str, seed: int) -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        options = ReadOptions(val_fraction=0.25, seed=seed)
        val = check_data(coco_file(tmp_path / folder), options).val
        assert val is not None
        return list(val.annotations.names)

    assert held_out("one", 0) == held_out("two", 0)
    assert held_out("one", 0) != held_out("one", 1)


def test_yaml_names_a_class_number(tmp_path: Path) -> None:
    root = yolo_of_box(tmp_path)
    write_json(root / "notes.json", {})
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: {0: no, 1: 010}\n"
    )
    splits = load_data(root)
    assert splits.train is not None
    assert splits.train.annotations.categories.names == ("no", "010")


def test_yaml_with_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo_of_box(tmp_path / "home" / "set")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = (tmp_path / "home" / "set" / "data.yaml").read_text()
    for index, path in enumerate(("~/set", "home/set", str(tmp_path / "home" / "set"))):
        (tmp_path / f"{index}.yaml").write_text(f"path: {path}\n{text}")
        check_usual(load_data(tmp_path / f"{index}.yaml"))


def test_labels_beside_the_images(tmp_path: Path) -> None:
    root = yolo_of_box(tmp_path)
    for label in (root / "labels").rglob("*.txt"):
        label.rename(root / "images" / label.relative_to(root / "labels"))
    check_usual(load_data(root))


def test_links_and_files_of_other_systems(tmp_path: Path) -> None:
    """A link that leads back to its folder, and what macOS leaves on foreign disks."""
    root = yolo_of_box(tmp_path)
    (root / "images" / "train" / "again").symlink_to(root / "images" / "train")
    (root / "images" / "train" / "._0000.png").write_bytes(b"\0\5\x16\7")
    check_usual(load_data(root))


def test_json_and_folder_with_other_names(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    (root / "train").rename(root / "train2017")
    check_usual(load_data(root))
