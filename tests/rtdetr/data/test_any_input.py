# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, looking at it ends with a report or a DataError, and what it lets pass can be trained on."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import NAMES, coco, draw, voc_page, write_json

from rtdetr.data import Augmentation, DetectionDataset, Key, ReadOptions, check_data
from rtdetr.errors import DataError

JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**70,
        -(2**63),
        0.5,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x",
    ),
    *("1", "\0", "../../x", "\udcff", "/", [], [None], [[]], {}, {"id": 1}, [1, 2, 3, 4, 5]),
    *(["a"] * 4, "9" * 400),
)
OPTIONS = (
    ReadOptions(val_fraction=0),
    ReadOptions(
        val_fraction=0, ignore_unknown_classes=True, skip_missing=True, drop_bad_boxes=True
    ),
)


def look(path: Path) -> None:
    """Check in both ways; train a little on what passes."""
    for options in OPTIONS:
        try:
            splits = check_data(path, options)
        except DataError:
            continue
        if splits.train is None or splits.report.failures():
            assert splits.report.failures()
            continue
        held = splits.train.annotations
        border = np.repeat(held.sizes, held.counts(), axis=0)[:, ::-1]
        assert (held.boxes[:, :2] >= 0).all()
        assert (held.boxes[:, 2:] <= border).all()
        assert (held.boxes[:, 2:] > held.boxes[:, :2]).all()
        assert ((held.classes >= 0) & (held.classes < len(held.categories))).all()
        dataset = DetectionDataset(splits.train, 32, augmentation=Augmentation())
        for index in range(len(dataset)):
            assert dataset[Key(0, index)]["labels"]["boxes"].isfinite().all()


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a document."""
    yield path
    items: Any = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: ascii(junk)[:20])
def test_coco_with_any_value_anywhere(junk: Any, tmp_path: Path) -> None:
    document = coco(("a.png", "b.png"))
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, name)
    for place in places(document):
        write_json(tmp_path / "data.json", json.dumps(replaced(document, place, junk)))
        look(tmp_path / "data.json")


LINES = (
    *("", " ", "0", "0 0 0 0 0", "0 1 1 1 1", "0 .5 .5 1 1", "1e400 .5 .5 .1 .1", "0 1e-320 .5 .1 .1"),
    *("0 inf .5 .1 .1", "0 .5 .5 nan .1", "0 -.5 .5 .1 .1", "0 .5 .5 -.1 .1", "\0", "\x0c", "½ .5 .5 .1 .1"),
    *("0x1 .5 .5 .1 .1", "0 " + ".5 " * 6, "0 " + ".5 " * 7, "0 .1 .1 .1 .1 .1 .1"),
    *("-0 .5 .5 .1 .1", "1_0 .5 .5 .1 .1"),
)  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=ascii)
def test_yolo_with_any_line(line: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "1.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a]")
    (tmp_path / "labels" / "1.txt").write_text(f"0 .5 .5 .25 .25\n{line}\n")
    look(tmp_path)


LONG = "9" * 400
IMAGES = "train: images\nnames: "
YAMLS = (
    *("", "a", "[]", "train:", "train: 3\nnames: 3", "train: []\nnames: [a]", "&a [*a]", "\t- :"),
    *(
        f"{IMAGES}{{0: a, 0: b}}",
        f"{IMAGES}{{}}",
        f"{IMAGES}[[a]]",
        f"{IMAGES}[a]\nnc: x",
        f"{IMAGES}[a]\nnc: [1]",
    ),
    *(
        f"path: [1]\n{IMAGES}[a]",
        f"path: {LONG}\n{IMAGES}[a]",
        f"{IMAGES}[a]\nval: val",
        f"{IMAGES}[a]\nval: [3]",
    ),
    *(
        f"train: {entry}\nnames: [a]"
        for entry in ("{a: b}", "images/1.png", "/\0", ".", "[[]]", LONG)
    ),
)


@pytest.mark.parametrize("text", YAMLS, ids=ascii)
def test_any_yaml(text: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "1.png")
    (tmp_path / "data.yaml").write_text(text)
    look(tmp_path)
    look(tmp_path / "data.yaml")


@pytest.mark.parametrize(
    "junk", ["", "x", "nan", "-1", "1e400", "&lt;", "\x7f", "9" * 400], ids=ascii
)
def test_voc_with_any_text_anywhere(junk: str, tmp_path: Path) -> None:
    draw(tmp_path / "JPEGImages" / "a.png")
    page = voc_page("a.png", [(NAMES[0], (9, 7, 24, 18)), (NAMES[1], (9, 7, 25, 18))])
    for old in ("a.png", "64", "48", "helmet", "24", "9", "<object>", "bndbox"):
        file = tmp_path / "Annotations" / "a.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(page.replace(old, junk, 1))
        look(tmp_path)
