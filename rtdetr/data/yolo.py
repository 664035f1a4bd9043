# SPDX-License-Identifier: Apache-2.0
"""YOLO's form: a data.yaml, and beside each image a text with a line ``class cx cy width height`` for each object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import exists, home_path, is_file, is_folder
from ..images.names import image_suffixes, natural_key
from .annotations import Categories
from .findings import FatalFindingError, Report, fail, number
from .names import check_names
from .options import ReadOptions
from .splits import SPLIT_NAMES
from .texts import read_text
from .unchecked import BoxList, UncheckedSplit

__all__ = ["YoloReader", "load_yaml"]

Corners = tuple[float, float, float, float]
Values = npt.NDArray[np.float64]

ROUNDING = 0.01
"""How far a fraction may leave 0..1: a label that was rounded, and not one in pixels."""
FORM = "expected `class center_x center_y width height` in fractions of the image"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line."""

    kind: str
    sentence: str


@dataclass(frozen=True)
class Line:
    """The object of a line."""

    label: int
    corners: Corners  # xyxy in fractions
    is_polygon: bool


@dataclass
class Labels:
    """The lines of all label files of a split."""

    classes: int
    boxes: BoxList = field(default_factory=BoxList)
    faults: dict[str, list[tuple[str, str]]] = field(
        default_factory=dict
    )  # kind -> (place, sentence)
    polygons: list[str] = field(default_factory=list)

    def read(self, image: int, file: Path) -> None:
        """Add the objects of one image."""
        try:
            lines = read_text(file, FORM).splitlines()
        except FatalFindingError as error:
            sentence = error.finding.sentence.removeprefix(f"{file}: ")
            self._add_fault(Fault(error.finding.kind, sentence), str(file))
            return
        for place, line in enumerate(lines, 1):
            if not line.strip():
                continue
            parsed = parse_line(line, self.classes)
            if isinstance(parsed, Fault):
                self._add_fault(parsed, f"{file} line {place}")
                continue
            self.boxes.add(image, parsed.corners, parsed.label, place)
            if parsed.is_polygon:
                self.polygons.append(f"{file} line {place}")

    def _add_fault(self, fault: Fault, place: str) -> None:
        self.faults.setdefault(fault.kind, []).append((place, fault.sentence))


@dataclass(frozen=True)
class YoloReader:
    """Reads a split that a data.yaml names.

    Args:
        split: "train" or "val".
        file: the data.yaml.
    """

    split: str
    file: Path

    def __call__(self, report: Report, options: ReadOptions) -> UncheckedSplit:
        document = load_yaml(self.file)
        categories = Categories.numbered(read_names(document, str(self.file)))
        check_names(categories.names, str(self.file), report)
        root = _root(document, self.file)
        folders, images = find_images(document, root, self.split, str(self.file))
        labels = Labels(len(categories))
        label_files = [label_file(image) for image in images]
        for index, label in enumerate(label_files):
            if is_file(label):
                labels.read(index, label)
        self._report_lines(labels, report, options)
        if _are_corners(labels):
            first, count = label_files[labels.boxes.images[0]], len(labels.boxes.images)
            report.add(
                "error",
                "yolo-corners",
                count,
                str(first),
                f"{first}: the {count:,} boxes of {self.split} look like two corners `x1 y1 x2 y2`; {FORM}",
            )
        _report_files(folders, images, label_files, self.split, report)
        names = [os.path.relpath(image, root) for image in images]
        return UncheckedSplit(
            self.split,
            str(folders[0] if folders else root),
            str(root),
            names,
            list(range(len(names))),
            [(0, 0)] * len(names),
            labels.boxes,
            categories,
            lambda image, place: f"{label_files[image]} line {place}",
            fractions=True,
        )

    def _report_lines(self, labels: Labels, report: Report, options: ReadOptions) -> None:
        for kind, faults in labels.faults.items():
            place, sentence = faults[0]
            more = f" ({len(faults):,} such lines in {self.split})" if len(faults) > 1 else ""
            text = f"{place}: {sentence}{more}"
            if kind == "unknown-category":
                is_dropped = options.ignore_unknown_classes
                report.add_droppable(
                    "ignore_unknown_classes", is_dropped, kind, len(faults), place, text
                )
            else:
                report.add("error", kind, len(faults), place, text)
        count = len(labels.polygons)
        if count:
            report.add(
                "note",
                "polygons",
                count,
                labels.polygons[0],
                f"{labels.polygons[0]}: a polygon; the box around it is taken ({number(count, 'polygon')} in "
                f"{self.split})",
            )


def load_yaml(file: Path) -> Mapping[str, Any]:
    """The document of a yaml file.

    Raises:
        FatalFindingError: if it is not one, or no mapping.
    """
    import yaml

    text = read_text(file, 'expected a mapping with "train" and "names"')
    try:
        # Not the loader of YAML's types: to it, a class called no is False, and one called 010 is 8.
        document = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise fail("not-yaml", str(file), f"{file}: not YAML: {reason}") from error
    if not isinstance(document, Mapping):
        raise fail("not-yaml", str(file), f'{file}: expected a mapping with "train" and "names"')
    return document


def read_names(document: Mapping[str, Any], source: str) -> list[str]:
    """Class names, from a list or from a mapping number -> name.

    Raises:
        FatalFindingError: if there are none, the numbers have gaps, or ``nc`` is another number.
    """
    names = document.get("names")
    if isinstance(names, Mapping):
        numbers = [str(index) for index in range(len(names))]
        if set(names) != set(numbers):
            raise fail(
                "bad-names",
                source,
                f'{source}: "names" has the keys {", ".join(list(names)[:20])}; expected 0 to {len(names) - 1}',
            )
        names = [names[number] for number in numbers]
    if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fail(
            "no-categories",
            source,
            f'{source}: "names" is {names!r}; expected a list of class names',
        )
    total = document.get("nc", str(len(names)))
    if total != str(len(names)):
        raise fail(
            "bad-names",
            source,
            f'{source}: "nc" is {total}, "names" has {len(names)}; expected the same number',
        )
    return names


def parse_line(line: str, classes: int) -> Line | Fault:
    """The object of a line, or what is wrong with it."""
    words = line.split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        commas = "with a comma; expected numbers with a point and spaces between them"
        end = f'found "{line.strip()[:60]}"'
        if "," in line:
            return Fault("yolo-commas", f"{end} {commas}")
        return Fault("yolo-not-numbers", f"{end}; {FORM}")
    is_polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not is_polygon:
        more = " (a sixth one is the score of a detection)" if len(words) == 6 else ""
        return Fault("yolo-columns", f"{number(len(words), 'column')}{more}; {FORM}")
    label = values[0]
    if not (label == np.floor(label) and 0 <= label < classes):
        expected = f'a whole number within 0..{classes - 1}, the places in "names"'
        return Fault("unknown-category", f"class {words[0]}; expected {expected}")
    over = np.flatnonzero(values[1:] > 1 + ROUNDING)
    if len(over):
        names = "xy" if is_polygon else ("x", "y", "width", "height")
        found = f"{names[over[0] % len(names)]}={words[1 + over[0]]} > 1"
        return Fault(
            "yolo-pixels",
            f"{found}. YOLO labels are fractions of the image; these look like pixels",
        )
    return Line(int(label), (_hull if is_polygon else _box)(values[1:]), is_polygon)


def _hull(points: Values) -> Corners:
    x, y = points[0::2], points[1::2]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _box(values: Values) -> Corners:
    x, y, width, height = values.tolist()
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _are_corners(labels: Labels) -> bool:
    """Whether the four numbers of the boxes are two corners.

    Every box then has its third number above the first and its fourth above the second, which centers and sizes have
    by chance in a large object alone; and read as centers and sizes, most of them leave the image.
    """
    corners = np.asarray(labels.boxes.corners, dtype=np.float64).reshape(-1, 4)
    if labels.polygons or not len(corners):
        return False
    low, high = corners[:, :2], corners[:, 2:]
    leaves = ((corners < -ROUNDING) | (corners > 1 + ROUNDING)).any(1)
    return bool(np.all(high - low > (low + high) / 2) and leaves.mean() >= 0.5)


def find_images(
    document: Mapping[str, Any], root: Path, split: str, source: str
) -> tuple[list[Path], list[Path]]:
    """The folders of a split, and its images in natural order.

    Raises:
        FatalFindingError: if what the yaml names does not exist.
    """
    entries = next((document[key] for key in SPLIT_NAMES[split] if document.get(key)), None)
    folders, images = [], []
    for entry in entries if isinstance(entries, list) else [entries]:
        path = _existing(root, str(entry))
        if path is None:
            raise fail(
                "no-images-folder",
                str(entry),
                f'{source}: "{split}: {entry}" does not exist under {root}; expected a folder of images',
            )
        if is_folder(path):
            folders.append(path)
            images += sorted(walk(path, image_suffixes()), key=natural_key)
        else:
            images += listed_images(path, root)
    return folders, images


def listed_images(file: Path, root: Path) -> list[Path]:
    """The images that a text names, one in a line, relative to the file where they begin with a dot."""
    text = read_text(file, "expected the name of an image in each line", any_bytes=True)
    lines = [line.strip() for line in text.splitlines()]
    return [
        Path(
            os.path.normpath(
                (file.parent if line.startswith("./") else root) / line.replace("\\", "/")
            )
        )
        for line in lines
        if line
    ]


def walk(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """The files below a folder that have one of the suffixes; links to folders are followed, each folder once.

    What begins with a dot is no image: macOS writes ``._1.jpg`` beside ``1.jpg`` on foreign disks.
    """
    known = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122 -- quick
                yield Path(parent, name)
        real = {name: os.path.realpath(os.path.join(parent, name)) for name in folders}  # noqa: PTH118 -- as above
        folders[:] = [name for name in folders if real[name] not in known]
        known.update(real.values())


def label_file(image: Path) -> Path:
    """``.../images/train/1.jpg`` -> ``.../labels/train/1.txt``, by the last folder called images; or beside it."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    usual, beside = Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")
    return beside if not is_file(usual) and is_file(beside) else usual


def _root(document: Mapping[str, Any], file: Path) -> Path:
    """``path`` of the yaml where it exists, relative to the yaml; else the yaml's folder."""
    named = document.get("path")
    root = file.parent / home_path(str(named)) if named else file.parent
    return root if is_folder(root) else file.parent


def _existing(root: Path, entry: str) -> Path | None:
    """Some exports write ``../train/images`` where ``train/images`` is meant."""
    entry = entry.replace("\\", "/")
    candidates = (root / entry, root / entry.removeprefix("../"))
    return next((Path(os.path.normpath(path)) for path in candidates if exists(path)), None)


def _report_files(
    folders: Sequence[Path],
    images: Sequence[Path],
    labels: Sequence[Path],
    split: str,
    report: Report,
) -> None:
    label_folders = {Path(label_file(folder / "x.jpg")).parent for folder in folders}
    known = set(labels)
    lonely = sorted(
        path
        for folder in label_folders
        for path in walk(folder, frozenset({".txt"}))
        if path not in known and path.name != "classes.txt"
    )
    if lonely:
        report.add(
            "warning",
            "label-without-image",
            len(lonely),
            str(lonely[0]),
            f"{split}: {number(len(lonely), 'label file')} without an image (first: {lonely[0]}); expected an "
            "image of the same name",
        )
    empty = [image for image, label in zip(images, labels, strict=True) if not is_file(label)]
    if empty:
        report.add(
            "note",
            "image-without-label",
            len(empty),
            str(empty[0]),
            f"{split}: {number(len(empty), 'image')} without a label file (first: {empty[0]}); taken as images "
            "without objects",
        )
