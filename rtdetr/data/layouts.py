# SPDX-License-Identifier: Apache-2.0
"""Which kind of data set a path is, found by looking; the list of known layouts, and what each looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import exists, is_file, is_folder
from .coco import CocoReader
from .findings import FatalFindingError
from .splits import SPLIT_NAMES
from .texts import read_text
from .unchecked import SplitReader
from .voc import VocReader
from .yolo import YoloReader, load_yaml

__all__ = ["LAYOUTS", "Layout", "Readers", "find_layout"]

Readers = dict[str, SplitReader]
"""A reader for "train" and, where there is one, for "val"."""

ROBOFLOW_FILE = "_annotations.coco.json"


@dataclass(frozen=True)
class Layout:
    """A form of data sets.

    Args:
        name: what people call it.
        tree: what it looks like.
        find: the splits of a path that has this form, else none.
    """

    name: str
    tree: str
    find: Callable[[Path], Readers]


def find_layout(path: Path) -> tuple[Layout, Readers]:
    """The first layout that fits.

    Raises:
        DataError: if there is nothing at ``path``, or no layout fits; the message shows those that would.
    """
    if not exists(path):
        raise DataError(f"{path}: no such file or folder")
    for layout in LAYOUTS:
        splits = layout.find(path)
        if splits:
            return layout, splits
    trees = "\n\n".join(f"{layout.name}\n{layout.tree}" for layout in LAYOUTS)
    raise DataError(
        f"{path}: none of the known layouts of annotated images. Expected one of these:\n\n{trees}"
    )


def find_roboflow(path: Path) -> Readers:
    files = {
        split: _first(path / folder / ROBOFLOW_FILE for folder in SPLIT_NAMES[split])
        for split in SPLIT_NAMES
    }
    if files["train"] is None:
        return {}
    return {
        split: CocoReader(split, file, [file.parent])
        for split, file in files.items()
        if file is not None
    }


def find_coco_folder(path: Path) -> Readers:
    if not is_folder(path):
        return {}
    files = {split: _coco_file(path, split) for split in SPLIT_NAMES}
    if files["train"] is None:
        single = _first(
            [path / "annotations.json", path / "_annotations.coco.json", *_single_json(path)]
        )
        return find_coco_file(single) if single else {}
    return {
        split: CocoReader(split, file, _image_roots(path, file, split))
        for split, file in files.items()
        if file is not None
    }


def find_coco_file(path: Path) -> Readers:
    if path.suffix.lower() != ".json" or not is_file(path):
        return {}
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    return {"train": CocoReader("train", path, _image_roots(folder, path, "train"))}


def find_yolo(path: Path) -> Readers:
    file = path if path.suffix.lower() in (".yaml", ".yml") else _first(_yaml_files(path))
    if file is None or not is_file(file):
        return {}
    try:
        document = load_yaml(file)
    except FatalFindingError:
        # Reading it tells why, if it is the one that was meant.
        return {"train": YoloReader("train", file)} if file in (path, path / "data.yaml") else {}
    if is_folder(path) and not ("train" in document and "names" in document):
        return {}
    splits: Readers = {"train": YoloReader("train", file)}
    if any(document.get(key) for key in SPLIT_NAMES["val"]):
        splits["val"] = YoloReader("val", file)
    return splits


def find_voc(path: Path) -> Readers:
    """VOC's own folders, a VOCdevkit with a single year, or train/ and valid/ with xml files beside the images."""
    for folder in (path, *sorted(path.glob("VOC*/"))) if is_folder(path) else ():
        if is_folder(folder / "Annotations"):
            return _voc_splits(folder)
    files = {split: _xml_folder(path, split) for split in SPLIT_NAMES}
    naming = files["train"]
    if not naming:
        return {}
    return {
        split: VocReader(split, found, found[0].parent, naming)
        for split, found in files.items()
        if found
    }


def _voc_splits(folder: Path) -> Readers:
    images = folder / "JPEGImages" if is_folder(folder / "JPEGImages") else folder
    lists = {split: _voc_list(folder, split) for split in SPLIT_NAMES}
    train = lists["train"] or sorted((folder / "Annotations").glob("*.xml"))
    if not train:
        return {}
    files = {"train": train, "val": lists["val"] if lists["train"] else []}
    return {
        split: VocReader(split, found, images, train) for split, found in files.items() if found
    }


def _voc_list(folder: Path, split: str) -> list[Path]:
    """The xml files of the names in ``ImageSets/Main/train.txt``."""
    file = _first(folder / "ImageSets" / "Main" / f"{name}.txt" for name in SPLIT_NAMES[split])
    form = "expected the name of an image in each line"
    text = read_text(file, form, any_bytes=True) if file else ""
    return [
        folder / "Annotations" / f"{line.split()[0]}.xml"
        for line in text.splitlines()
        if line.strip()
    ]


def _xml_folder(path: Path, split: str) -> list[Path]:
    folders = (path / name for name in SPLIT_NAMES[split])
    return next((files for folder in folders if (files := sorted(folder.glob("*.xml")))), [])


def _coco_file(path: Path, split: str) -> Path | None:
    """``annotations/instances_train2017.json``, ``annotations/train.json``, ``train.json``, or the like."""
    folders = (path / "annotations", path)
    names = [f"{prefix}{name}" for name in SPLIT_NAMES[split] for prefix in ("instances_", "")]
    exact = [folder / f"{name}.json" for folder in folders for name in names]
    years = [
        found
        for folder in folders
        for name in names
        for found in sorted(folder.glob(f"{name}[0-9]*.json"))
    ]
    inside = [
        path / name / f"{file}.json"
        for name in SPLIT_NAMES[split]
        for file in ("annotations", "_annotations", name)
    ]
    return _first([*exact, *years, *inside])


def _single_json(path: Path) -> list[Path]:
    for folder in (path, path / "annotations"):
        files = sorted(folder.glob("*.json"))
        if len(files) == 1:
            return files
    return []


def _image_roots(path: Path, file: Path, split: str) -> Sequence[Path]:
    """Folders that may hold the images of a json, the likely ones first."""
    names = [file.stem.removeprefix("instances_"), *SPLIT_NAMES[split]]
    split_folders = [folder / name for name in names for folder in (path / "images", path)]
    years = [folder for name in SPLIT_NAMES[split] for folder in sorted(path.glob(f"{name}*/"))]
    return [*split_folders, *years, path / "images", file.parent, path]


def _yaml_files(path: Path) -> list[Path]:
    if not is_folder(path):
        return []
    usual = path / "data.yaml"
    return [usual, *sorted(path.glob("*.yaml")), *sorted(path.glob("*.yml"))]


def _first(paths: Any) -> Path | None:
    return next((path for path in paths if is_file(path)), None)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "Roboflow's COCO export",
        "  DATA/train/_annotations.coco.json  DATA/train/*.jpg\n"
        "  DATA/valid/_annotations.coco.json  DATA/valid/*.jpg",
        find_roboflow,
    ),
    Layout(
        "YOLO",
        "  DATA/data.yaml           train: images/train, val: images/val, names: [cat, dog]\n"
        "  DATA/images/train/1.jpg  DATA/labels/train/1.txt\n"
        "  DATA/images/val/2.jpg    DATA/labels/val/2.txt",
        find_yolo,
    ),
    Layout(
        "COCO",
        "  DATA/annotations/instances_train.json  DATA/train/*.jpg\n"
        "  DATA/annotations/instances_val.json    DATA/val/*.jpg",
        find_coco_folder,
    ),
    Layout("COCO, one file", "  DATA.json  images/*.jpg", find_coco_file),
    Layout(
        "Pascal VOC",
        "  DATA/Annotations/1.xml  DATA/JPEGImages/1.jpg\n"
        "  DATA/ImageSets/Main/train.txt  DATA/ImageSets/Main/val.txt",
        find_voc,
    ),
)
"""In the order in which they are tried."""
