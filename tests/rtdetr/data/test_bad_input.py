# SPDX-License-Identifier: Apache-2.0
"""One table: what is wrong with a data set, and the finding that says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
    voc_folder,
    voc_page,
    write_json,
    yolo_folder,
)
from PIL import Image, ImageDraw, ImageOps

from rtdetr.data import DataSplits, ReadOptions, check_data, load_data
from rtdetr.errors import DataError

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Case:
    """What is done to a data set, and the finding: its kind, severity, count, and words of its sentence.

    ``option`` is the field of ``ReadOptions`` that makes a warning of it.
    """

    make: Callable[[Path], Path]
    kind: str
    words: tuple[str, ...]
    severity: str = "error"
    count: int = 1
    option: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def train_with(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Path]:
    """A COCO folder whose train document went through ``change``, which may also return another one."""

    def make(root: Path) -> Path:
        document = coco(TRAIN)
        changed = change(document)
        return coco_folder(root, document if changed is None else changed)

    return make


def train_text(text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        write_json(coco_folder(root) / "annotations" / "instances_train.json", text)
        return root

    return make


def entry(key: str, place: int, **values: Any) -> Callable[[Path], Path]:
    """A COCO folder with other values in one entry of train."""
    return train_with(lambda document: document[key][place].update(values))


def bbox(*values: Any) -> Callable[[Path], Path]:
    return entry("annotations", 3, bbox=list(values))


def box_in_image(shape: tuple[int, int]) -> Callable[[Path], Path]:
    """The file of the first image of train has another shape than declared."""

    def make(root: Path) -> Path:
        coco_folder(root)
        draw(root / "train" / TRAIN[0], 1, size=shape)
        return root

    return make


def without(*names: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        coco_folder(root)
        for name in names:
            (root / name).unlink()
        return root

    return make


def broken(content: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        coco_folder(root)
        file = root / "train" / TRAIN[4]
        file.write_bytes(content(file.read_bytes()))
        return root

    return make


def cut_off(*indices: int) -> Callable[[Path], Path]:
    """Images of train whose last bytes are gone: their heads are sound."""

    def make(root: Path) -> Path:
        coco_folder(root)
        for index in indices:
            file = root / "train" / TRAIN[index]
            file.write_bytes(file.read_bytes()[:-400])
        return root

    return make


def yolo_line(line: str) -> Callable[[Path], Path]:
    return lambda root: yolo_folder(root, first=f"0 .5 .5 .25 .25\n\n{line}\n")


def yolo_corners(root: Path) -> Path:
    """Train alone."""
    for label in (yolo_folder(root, "0 .6 .5 .9 .75") / "labels" / "val").iterdir():
        label.write_text("0 .6 .5 .2 .2")
    return root


def yolo_list(*names: str) -> Callable[[Path], Path]:
    """Train is a text that names images."""

    def make(root: Path) -> Path:
        yolo_folder(root)
        lines = "\n".join(f"images/train/{name}" for name in names)
        (root / "train.txt").write_text(lines, errors="surrogateescape")
        (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [a, b]")
        return root

    return make


def yolo_yaml(text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        (yolo_folder(root) / "data.yaml").write_text(text)
        return root

    return make


def voc_text(text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        (voc_folder(root) / "Annotations" / "0003.xml").write_text(text)
        return root

    return make


def same_images(root: Path) -> Path:
    """One image of val is a copy of one of train under another name."""
    coco_folder(root)
    shutil.copy(root / "train" / TRAIN[5], root / "val" / VAL[0])
    return root


def val_is_train(root: Path) -> Path:
    root = yolo_folder(root)
    (root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b]\n")
    return root


def few_without_val(count: int) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        coco_folder(root, coco(TRAIN[:count]))
        return root / "annotations" / "instances_train.json"

    return make


def lonely_label(root: Path) -> Path:
    yolo_folder(root)
    (root / "labels" / "train" / "lost.txt").write_text("0 .5 .5 .1 .1\n")
    (root / "labels" / "train" / "classes.txt").write_text("helmet\nhead\n")
    return root


def no_label(root: Path) -> Path:
    yolo_folder(root)
    (root / "labels" / "train" / "0001.txt").unlink()
    return root


def many_boxes(document: dict[str, Any]) -> None:
    document["annotations"] += [
        {"image_id": 10, "category_id": 1, "bbox": [i % 60, i // 60, 3, 3]} for i in range(400)
    ]


def unused_class(document: dict[str, Any]) -> None:
    document["categories"].append({"id": 77, "name": "vest"})


def val_with_one_class(root: Path) -> Path:
    val = coco(VAL)
    val["annotations"].pop()
    return coco_folder(root, val=val)


def val_with_unknown_class(root: Path) -> Path:
    val = coco(VAL)
    val["categories"][1]["name"] = "dog"
    return coco_folder(root, val=val)


RESULTS = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5}]
LABELME = {"version": "5", "shapes": [], "imagePath": "1.jpg", "imageData": None}
FULL_BOX = [0.0, 0.0, float(WIDTH), float(HEIGHT)]

CASES = {
    # Categories
    "unknown category": Case(
        entry("annotations", 3, category_id=7), "unknown-category",
        ("instances_train.json", "category_id 7 (1 box, first: image 0003.png)", "[1, 2]"),
        option="ignore_unknown_classes",
    ),
    "unknown categories": Case(
        train_with(lambda d: [d["annotations"][i].update(category_id=90 + i) for i in range(11)] and None),
        "unknown-category",
        ("category_id 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, ... (11 boxes, first: image 0000.png)",),
        count=11, option="ignore_unknown_classes",
    ),
    "category id as text": Case(
        entry("annotations", 3, category_id="1"), "unknown-category", ("category_id '1'",),
        option="ignore_unknown_classes",
    ),
    "category id as truth": Case(
        entry("annotations", 3, category_id=True), "unknown-category", ("category_id True",)
    ),
    "no category id": Case(
        train_with(lambda d: d["annotations"][3].pop("category_id") and None), "unknown-category",
        ("category_id None",),
    ),
    "repeated name": Case(
        entry("categories", 1, name="helmet"), "repeated-name", ("helmet", "2 times")
    ),
    "repeated category id": Case(
        entry("categories", 1, id=1), "repeated-category-id", ("categories[1]", "id 1")
    ),
    "no categories": Case(
        train_with(lambda d: d.pop("categories") and None), "no-categories", ('no "categories"',)
    ),
    "empty categories": Case(
        train_with(lambda d: d.update(categories=[])), "no-categories", ("is empty",)
    ),
    "category without a name": Case(
        train_with(lambda d: d["categories"].append({"id": 3})), "bad-category", ("categories[2]",)
    ),
    "unused category": Case(
        train_with(unused_class), "unused-category", ("1 class", "vest"), severity="note"
    ),
    "class without boxes in train": Case(
        train_with(lambda d: [a.update(category_id=1) for a in d["annotations"]] and None),
        "class-without-boxes", ("in train", "head"), severity="warning",
    ),
    "class without boxes in val": Case(
        val_with_one_class, "class-without-boxes", ("in val, which no average precision counts: head",),
        severity="warning",
    ),
    "class of val that train has not": Case(
        val_with_unknown_class, "other-categories", ("instances_val.json", '"dog"', "helmet, head")
    ),
    # The json
    "json cut off": Case(
        train_text(json.dumps(coco(TRAIN))[:-40]), "not-json",
        ("instances_train.json line 1 column", "cut off"),
    ),
    "json empty": Case(train_text(""), "not-json", ("is not JSON",)),
    "json garbage": Case(train_text("names: [a]"), "not-json", ("is not JSON",)),
    "json of bytes": Case(
        lambda root: _write_bytes(coco_folder(root)), "not-text", ("UTF-8",)
    ),
    "results": Case(
        train_with(lambda _: RESULTS), "other-json", ("a list of detections", "expected a COCO")
    ),
    "LabelMe": Case(train_with(lambda _: LABELME), "other-json", ("LabelMe",)),
    "CreateML": Case(
        train_with(lambda _: [{"image": "1.jpg", "annotations": []}]), "other-json", ("CreateML",)
    ),
    "test set": Case(
        train_with(lambda d: d.pop("annotations") and None), "other-json", ("test set",)
    ),
    "panoptic": Case(
        train_with(lambda d: d.update(annotations=[{"segments_info": [], "image_id": 10}])),
        "other-json", ("panoptic",),
    ),
    "other object": Case(
        train_with(lambda _: {"a": 1, "b": 2}), "other-json", ("an object with 'a', 'b'",)
    ),
    "other list": Case(train_with(lambda _: [1, 2]), "other-json", ("a list of 2 items",)),
    "a number": Case(train_text("3"), "other-json", ("a single int",)),
    "images no list": Case(
        train_with(lambda d: d.update(images={})), "bad-entry", ('"images" is {}',)
    ),
    "annotation no object": Case(
        train_with(lambda d: d["annotations"].append(7)), "bad-entry", ("annotations[12] is 7",)
    ),
    # Images
    "two images with one id": Case(
        entry("images", 4, id=10), "repeated-image-id", ("images[4] (0004.png)", "id 10")
    ),
    "two images with one file": Case(
        entry("images", 4, file_name="./0000.png"), "repeated-file", ("images[4]", "./0000.png")
    ),
    "image without a name": Case(
        entry("images", 4, file_name=None), "bad-image", ("images[4]", "None")
    ),
    "image id as text": Case(entry("images", 4, id="x"), "bad-image", ("images[4]", "'x'")),
    "annotation of no image": Case(
        entry("annotations", 3, image_id=99), "unknown-image", ("annotations[3]", "image_id 99")
    ),
    "annotations with one id": Case(
        entry("annotations", 3, id=0), "repeated-annotation-id", ("first: 0",), severity="note"
    ),
    "image missing": Case(
        without(f"train/{TRAIN[2]}", f"train/{TRAIN[7]}"), "missing-image",
        ("train: 2 of 12 images not found under", "first: 0002.png"), count=2, option="skip_missing",
    ),
    "image empty": Case(
        broken(lambda _: b""), "unreadable-image", ("0004.png: the file is empty",),
        option="skip_missing",
    ),
    "image of text": Case(
        broken(lambda _: b"no image"), "unreadable-image", ("its format is not known",),
        option="skip_missing",
    ),
    "image truncated": Case(
        broken(lambda data: data[:-400]), "unreadable-image", ("0004.png", "1 of 12 images"),
        option="skip_missing", options={"decode": True},
    ),
    "images cut off": Case(
        cut_off(*range(12)), "unreadable-image",
        ("12 of 12 images", "first: 0000.png: not a readable image", "; also 0001.png, ", "0009.png, ...)"),
        count=12, options={"decode": True},
    ),
    "image of another size, boxes fit": Case(
        box_in_image((WIDTH * 2, HEIGHT)), "size-differs",
        ("declared 64x48, the file has 128x48", "the file's size counts"), severity="warning",
    ),
    "image of another size, boxes do not fit": Case(
        box_in_image((WIDTH // 4, HEIGHT // 4)), "size-differs", ("do not fit",)
    ),
    "no images": Case(
        train_with(lambda d: d.update(images=[], annotations=[])), "no-images", ("train: 0 images",)
    ),
    "no box at all": Case(
        train_with(lambda d: d.update(annotations=[])), "no-boxes", ("train: no box in any",)
    ),
    "no box at all, and none is to be empty": Case(
        train_with(lambda d: d.update(annotations=[])), "no-boxes", ("train: no box in any of its 12",),
        options={"no_empty": True},
    ),
    "crowds alone": Case(
        train_with(lambda d: [a.update(iscrowd=1) for a in d["annotations"]] and None), "no-boxes",
        ("no crowd",),
    ),
    # Boxes
    "box with NaN": Case(
        bbox(1, 2, float("nan"), 4), "bad-box",
        ("annotations[3] (0003.png)", "four finite numbers"), option="drop_bad_boxes",
    ),
    "box with infinity": Case(
        bbox(1, float("inf"), 3, 4), "bad-box", ("finite",), option="drop_bad_boxes"
    ),
    "box of text": Case(bbox("a", 2, 3, 4), "bad-box", ("finite",), option="drop_bad_boxes"),
    "box of three": Case(bbox(1, 2, 3), "bad-box", ("finite",), option="drop_bad_boxes"),
    "no box": Case(entry("annotations", 3, bbox=None), "bad-box", ("finite",)),
    "box of negative width": Case(
        bbox(9, 2, -3, 4), "bad-box", ("-3 wide and 4 high", "above 0"), option="drop_bad_boxes"
    ),
    "box of zero height": Case(
        bbox(9, 2, 3, 0), "bad-box", ("3 wide and 0 high",), option="drop_bad_boxes"
    ),
    "box outside": Case(
        bbox(70, 2, 3, 4), "bad-box", ("is outside the image of 64x48",), option="drop_bad_boxes"
    ),
    "two bad boxes": Case(
        train_with(lambda d: [d["annotations"][i].update(bbox=[1, 1, 0, 1]) for i in (3, 5)] and None),
        "bad-box", ("annotations[3]", "2 such boxes in train"), count=2, option="drop_bad_boxes",
    ),
    "box partly outside": Case(
        bbox(-4, 40, 20, 20), "clipped", ("train: 1 box cut", "annotations[3]"), severity="note"
    ),
    "duplicate": Case(
        train_with(lambda d: d["annotations"].append(dict(d["annotations"][3], id=500))),
        "duplicate-box", ("train: 1 box", "annotations[12]"), severity="note",
    ),
    "more boxes than queries": Case(
        train_with(many_boxes), "more-boxes-than-queries",
        ("more boxes than the 300 queries", "at least 401"), severity="warning",
    ),
    "tiny boxes": Case(
        bbox(5, 5, 0.5, 20), "tiny-boxes",
        ("train: 1 box (8%) narrower than 8 px at 640x640 (first: 0003.png)", "at imgsz 1,024"),
        severity="warning",
    ),
    "vanishing boxes": Case(
        bbox(5, 5, 0.5, 20), "vanishing-boxes",
        ("train: 1 box (8%) narrower than 1 px at 96x96 (first: 0003.png)", "nothing is learnt", "at imgsz 128"),
        severity="warning", options={"imgsz": 96},
    ),
    # Splits
    "too few to hold out": Case(
        few_without_val(9), "too-few-to-split", ("9 images are too few", "at least 10"), count=9
    ),
    "held out": Case(
        few_without_val(12), "held-out", ("1 of 12 images are held out",), severity="note"
    ),
    "an image in train and val": Case(
        same_images, "shared-images", ("val and train overlap: 1 of 2 images", "0005.png"),
        severity="warning",
    ),
    "val is train": Case(
        val_is_train, "shared-images", ("val is part of train: 12 of 12",), severity="warning",
        count=12,
    ),
    # YOLO
    "YOLO in pixels": Case(
        yolo_line("1 412.0 0.5 20 30"), "yolo-pixels",
        ("labels/train/0000.txt line 3: x=412.0 > 1", "fractions"),
    ),
    "YOLO corners": Case(
        yolo_corners, "yolo-corners",
        ("0000.txt: the 12 boxes of train", "x1 y1 x2 y2", "center_x"), count=12,
    ),
    "YOLO with scores": Case(
        yolo_line("0 .5 .5 .1 .1 .9"), "yolo-columns", ("line 3: 6 columns", "score")
    ),
    "YOLO with four columns": Case(yolo_line("0 .5 .5 .1"), "yolo-columns", ("4 columns",)),
    "YOLO unknown class": Case(
        yolo_line("2 .5 .5 .1 .1"), "unknown-category", ("line 3: class 2", "within 0..1"),
        option="ignore_unknown_classes",
    ),
    "YOLO negative class": Case(yolo_line("-1 .5 .5 .1 .1"), "unknown-category", ("class -1",)),
    "YOLO class with a fraction": Case(yolo_line("0.5 .5 .5 .1 .1"), "unknown-category", ("0.5",)),
    "YOLO with commas": Case(
        yolo_line("0 0,5 0,5 0,1 0,1"), "yolo-commas", ("line 3", "with a comma")
    ),
    "YOLO with words": Case(yolo_line("helmet .5 .5 .1 .1"), "yolo-not-numbers", ("helmet",)),
    "YOLO polygon": Case(
        yolo_line("0 .1 .1 .3 .1 .2 .4"), "polygons", ("line 3: a polygon", "1 polygon in train"),
        severity="note",
    ),
    "YOLO not a number": Case(
        yolo_line("0 nan .5 .1 .1"), "bad-box", ("line 3", "finite"), option="drop_bad_boxes"
    ),
    "YOLO no size": Case(
        yolo_line("0 .5 .5 0 .1"), "bad-box", ("line 3", "0 wide"), option="drop_bad_boxes"
    ),
    "YOLO label without image": Case(
        lonely_label, "label-without-image", ("1 label file", "lost.txt"), severity="warning"
    ),
    "YOLO image without label": Case(
        no_label, "image-without-label", ("train: 1 image", "0001.png"), severity="note"
    ),
    "YOLO other nc": Case(
        yolo_yaml("train: images/train\nnc: 3\nnames: [a, b]"), "bad-names", ('"nc" is 3',)
    ),
    "YOLO names with a gap": Case(
        yolo_yaml("train: images/train\nnames: {0: a, 2: b}"), "bad-names", ("keys 0, 2;", "0 to 1")
    ),
    "YOLO no names": Case(
        yolo_yaml("train: images/train\nnames: []"), "no-categories", ('"names" is []',)
    ),
    "YOLO no such folder": Case(
        yolo_yaml("train: images/tarin\nnames: [a, b]"), "no-images-folder", ("images/tarin",)
    ),
    "YOLO name of an object": Case(
        yolo_yaml("train: images/train\nnames: [a, {b: c}]"), "no-categories", ("{'b': 'c'}",)
    ),
    "YOLO no yaml": Case(
        lambda root: _broken_yaml(yolo_folder(root)), "not-yaml", ("data.yaml: not YAML", "line 2")
    ),
    "YOLO image listed twice": Case(
        yolo_list(*TRAIN, TRAIN[3]), "repeated-file", ("1 image listed more than once", "0003.png")
    ),
    "YOLO list of something else": Case(
        yolo_list("\0\udcff"), "unreadable-image", ("1 of 1 image",)
    ),
    # VOC
    "VOC cut off": Case(voc_text("<annotation><object>"), "not-xml", ("0003.xml: not XML",)),
    "VOC other xml": Case(voc_text("<svg/>"), "other-xml", ("<svg>", "<annotation>")),
    "VOC without a corner": Case(
        voc_text("<annotation><object><name>a</name><bndbox/></object></annotation>"), "bad-object",
        ("0003.xml: object 1", "<xmin>"),
    ),
    "VOC unknown class": Case(
        lambda root: _write_voc_val(voc_folder(root)), "unknown-category",
        ('the class "dog"', "head, helmet"), option="ignore_unknown_classes",
    ),
    "VOC bad box": Case(
        voc_text(voc_page("0003.png", [("head", (30, 9, 20, 15))])), "bad-box",
        ("0003.xml: object 1", "-9 wide"), option="drop_bad_boxes",
    ),
}  # fmt: skip


def _write_bytes(root: Path) -> Path:
    (root / "annotations" / "instances_train.json").write_bytes(b"\xff\xfe\x00")
    return root


def _broken_yaml(root: Path) -> Path:
    (root / "data.yaml").write_text("train: x\nnames: [a")
    return root


def _write_voc_val(root: Path) -> Path:
    (root / "Annotations" / "val_0.xml").write_text(
        voc_page("val_0.png", [("dog", (9, 7, 24, 18))])
    )
    return root


def findings(splits: DataSplits, kind: str) -> list[Any]:
    return [finding for finding in splits.report if finding.kind == kind]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_finding(case: Case, tmp_path: Path) -> None:
    splits = check_data(case.make(tmp_path), ReadOptions(**case.options))
    (finding,) = findings(splits, case.kind)
    assert (finding.severity, finding.count) == (case.severity, case.count)
    for word in case.words:
        assert word in finding.sentence


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_an_error(case: Case, tmp_path: Path) -> None:
    """An error names its exit code and its sentence; a warning is one with ``strict``; a note is none."""
    path, options = case.make(tmp_path), ReadOptions(**case.options)
    (finding,) = findings(check_data(path, options), case.kind)
    fails = {strict: _fails(path, options, finding.sentence, strict) for strict in (False, True)}
    assert (
        fails
        == {
            "error": {False: True, True: True},
            "warning": {False: False, True: True},
            "note": {False: False, True: False},
        }[case.severity]
    )


def _fails(path: Path, options: ReadOptions, sentence: str, strict: bool) -> bool:
    try:
        load_data(path, options, strict=strict)
    except DataError as error:
        return sentence in str(error) and error.exit_code == 3
    return False


DROPPABLE = {name: case for name, case in CASES.items() if case.option}


@pytest.mark.parametrize("case", DROPPABLE.values(), ids=DROPPABLE)
def test_what_may_be_left_out(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    (error,) = findings(check_data(path, ReadOptions(**case.options)), case.kind)
    assert case.option in error.sentence
    splits = load_data(path, ReadOptions(**case.options, **{case.option: True}))
    (warning,) = findings(splits, case.kind)
    assert (warning.severity, warning.count) == ("warning", case.count)
    assert warning.sentence.endswith("Left out.")
    assert splits.train is not None
    if case.option == "skip_missing":
        assert len(splits.train) == 12 - case.count


def test_all_images_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    path = cut_off(*range(12))(tmp_path)
    (tmp_path / "val" / VAL[1]).unlink()
    report = check_data(path, ReadOptions(decode=True)).report
    entries = json.loads(json.dumps(report.as_dicts()))
    names = {entry["kind"]: entry["all"] for entry in entries if "all" in entry}
    assert names == {"unreadable-image": list(TRAIN), "missing-image": [VAL[1]]}


def test_json_cut_anywhere(tmp_path: Path) -> None:
    text = json.dumps(coco(TRAIN[:1]) | {"more": [True, None, -1.5e3, "\u00fc\\n", {}]})
    root = coco_folder(tmp_path)
    for end in range(1, len(text)):
        write_json(root / "annotations" / "instances_train.json", text[:end])
        (finding,) = (f for f in check_data(root).report if f.severity == "error")
        assert finding.kind == "not-json"
        assert "is cut off" in finding.sentence, text[:end]


def test_two_errors_are_told_together(tmp_path: Path) -> None:
    document = coco(TRAIN)
    document["annotations"][2]["category_id"] = 7
    document["annotations"][4]["bbox"] = [0, 0, 0, 0]
    with pytest.raises(DataError) as caught:
        load_data(coco_folder(tmp_path, document))
    assert len(str(caught.value).splitlines()) == 2


def test_a_clean_data_set_has_no_findings(tmp_path: Path) -> None:
    assert list(check_data(coco_folder(tmp_path)).report) == []


def test_a_clipped_box_ends_at_the_border(tmp_path: Path) -> None:
    splits = load_data(bbox(-4, 40, 20, 20)(tmp_path))
    assert splits.train is not None
    assert splits.train.annotations.boxes[3].tolist() == [0, 40, 16, HEIGHT]


def test_a_polygon_is_its_hull(tmp_path: Path) -> None:
    splits = load_data(yolo_line("0 .25 .5 .5 .25 .375 .75")(tmp_path))
    assert splits.train is not None
    assert splits.train.annotations.boxes[1].tolist() == [16, 12, 32, 36]


def test_yolo_corners_in_a_large_object_are_centers(tmp_path: Path) -> None:
    splits = load_data(yolo_folder(tmp_path, "0 .5 .5 .75 .25"))
    assert [finding.kind for finding in splits.report] == []


# Where the sides do not change places, nothing tells the two frames apart: it is read as upright.
@pytest.mark.parametrize(
    ("frame", "orientation"),
    [*(("upright", n) for n in range(1, 9)), *(("stored", n) for n in range(5, 9))],
)
def test_exif_turns_boxes_and_images_alike(frame: str, orientation: int, tmp_path: Path) -> None:
    """A white rectangle lies where its box is, whether it was annotated before or after the turn."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).rectangle((8, 6, 23, 17), fill="white")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    document = coco(TRAIN)
    coco_folder(tmp_path, document)
    image.save(tmp_path / "train" / TRAIN[0], exif=exif)
    with Image.open(tmp_path / "train" / TRAIN[0]) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("L"))
    rows, columns = np.nonzero(upright > 128)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    if frame == "upright":
        x1, y1, x2, y2 = map(int, box)
        document["annotations"][0]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        document["images"][0].update(height=upright.shape[0], width=upright.shape[1])
        write_json(tmp_path / "annotations" / "instances_train.json", document)
    splits = load_data(tmp_path)
    assert splits.train is not None
    assert splits.train.annotations.sizes[0].tolist() == list(upright.shape)
    assert splits.train.annotations.boxes[0].tolist() == box
    assert len(findings(splits, "turned")) == (frame == "stored")


BAD_ITEMS = {
    "no pair": ([1], "item 0 is int"),
    "no classes": ([("x", {"boxes": []})], "item 0 is ['boxes']"),
    "other numbers": ([("x", {"boxes": [FULL_BOX], "labels": []})], "shapes [1, 4], [0], [0]"),
    "class too high": ([("x", {"boxes": [FULL_BOX], "labels": [2]})], "in 0..1"),
    "no numbers": ([("x", {"boxes": [[1, 2], [3]], "labels": [0]})], "item 0: "),
    "class by name": ([("x", {"boxes": [FULL_BOX], "labels": ["cat"]})], "item 0: could not"),
    "id of text": ([("x", {"boxes": [], "labels": [], "image_id": "a"})], "item 0: invalid"),
    "classes in rows": ([("x", {"boxes": [FULL_BOX], "labels": [[0]]})], "[1, 1]"),
}


@pytest.mark.parametrize(("items", "words"), BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_bad_pairs(items: list[Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(items, names=NAMES)
    assert words in str(caught.value)


def test_pairs_with_one_id() -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    items = [(image, {"boxes": [FULL_BOX], "labels": [0], "image_id": i % 11}) for i in range(12)]
    (finding,) = check_data(items).report.failures()
    assert finding.kind == "repeated-image-id"
    assert "train: 1 image id of several images (first: 0)" in finding.sentence


def test_an_image_may_come_twice_from_python(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    items = [(tmp_path / "a.png", {"boxes": [FULL_BOX], "labels": [0]})] * 2
    assert list(check_data(items, ReadOptions(val_fraction=0)).report) == []


BAD_SOURCES = {
    "no train": ({"val": []}, 'expected "train"'),
    "not iterable": ({"train": 3}, "expected a sequence"),
}


@pytest.mark.parametrize(("source", "words"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_sources(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(source)


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="skip_missing"):
        ReadOptions(skip_mising=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="val_fraction"):
        ReadOptions(val_fraction=1.5)
