# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC's form: an xml for each image. Pixels are counted from 1, and the last one belongs to the box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..files import is_file
from .annotations import Categories
from .findings import Report, fail
from .options import ReadOptions
from .unchecked import BoxList, UncheckedSplit

__all__ = ["VocReader"]

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    name: str
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class VocImage:
    """What an xml says."""

    file: str
    size: tuple[int, int]  # (height, width), 0 where it does not say
    objects: tuple[VocObject, ...]


@dataclass(frozen=True)
class VocReader:
    """Reads a split.

    Args:
        split: "train" or "val".
        files: the xml files of the split.
        images: the folder of the images.
        naming: the xml files that decide which classes there are; those of train.
    """

    split: str
    files: Sequence[Path]
    images: Path
    naming: Sequence[Path]

    def __call__(self, report: Report, options: ReadOptions) -> UncheckedSplit:
        pages = [read_page(file) for file in self.files]
        categories = self._read_categories(pages)
        class_of = {name: index for index, name in enumerate(categories.names)}
        first = _first_pixel(pages, str(self.images), report)
        boxes = BoxList()
        unknown: dict[str, list[Path]] = {}
        for image, page in enumerate(pages):
            for place, entry in enumerate(page.objects):
                x1, y1, x2, y2 = entry.corners
                if entry.name in class_of:
                    boxes.add(image, (x1 - first, y1 - first, x2, y2), class_of[entry.name], place)
                else:
                    unknown.setdefault(entry.name, []).append(self.files[image])
        self._report_unknown(unknown, categories, report, options)
        return UncheckedSplit(
            self.split,
            str(self.files[0].parent if self.files else self.images),
            str(self.images),
            [self._image_name(page, file) for page, file in zip(pages, self.files, strict=True)],
            list(range(len(pages))),
            [page.size for page in pages],
            boxes,
            categories,
            lambda image, place: f"{self.files[image]}: object {place + 1}",
        )

    def _image_name(self, page: VocImage, file: Path) -> str:
        """What the xml says; where that does not exist, the image with the name of the xml: files get renamed."""
        if is_file(self.images / page.file):
            return page.file
        names = [
            file.stem + suffix for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
        ]
        return next((name for name in names if is_file(self.images / name)), page.file)

    def _read_categories(self, pages: Sequence[VocImage]) -> Categories:
        naming = pages if self.naming == self.files else [read_page(file) for file in self.naming]
        names = sorted({entry.name for page in naming for entry in page.objects})
        if not names:
            raise fail(
                "no-boxes",
                str(self.images),
                f"{self.images}: no xml of train has an object; expected at least one",
            )
        return Categories.numbered(names)

    def _report_unknown(
        self,
        unknown: dict[str, list[Path]],
        categories: Categories,
        report: Report,
        options: ReadOptions,
    ) -> None:
        if not unknown:
            return
        files = [file for files in unknown.values() for file in files]
        names = ", ".join(f'"{name}"' for name in list(unknown)[:10])
        known = ", ".join(categories.names[:20])
        report.add_droppable(
            "ignore_unknown_classes",
            options.ignore_unknown_classes,
            "unknown-category",
            len(files),
            str(files[0]),
            f"{files[0]}: the class {names} is not in train ({known})",
        )


def read_page(file: Path) -> VocImage:
    """One xml.

    Raises:
        FatalFindingError: if it is none of VOC's, or an object has no name or box.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise fail(
            "unreadable-file", str(file), f"{file}: cannot be read: {error.strerror}"
        ) from error
    except ElementTree.ParseError as error:
        raise fail("not-xml", str(file), f"{file}: not XML: {error}") from error
    if root.tag != "annotation":
        raise fail(
            "other-xml",
            str(file),
            f"{file}: begins with <{root.tag}>; expected Pascal VOC's <annotation>",
        )
    objects = tuple(
        _read_object(entry, place, file) for place, entry in enumerate(root.iter("object"), 1)
    )
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    sides = [_number(root.findtext(f"size/{side}")) for side in ("height", "width")]
    known = all(0 < side < math.inf for side in sides)
    return VocImage(
        name or f"{file.stem}.jpg", (int(sides[0]), int(sides[1])) if known else (0, 0), objects
    )


def _read_object(entry: ElementTree.Element, place: int, file: Path) -> VocObject:
    name = (entry.findtext("name") or "").strip()
    texts = [entry.findtext(f"bndbox/{corner}") for corner in CORNERS]
    if not name or None in texts:
        missing = "name" if not name else CORNERS[texts.index(None)]
        raise fail(
            "bad-object",
            f"{file}: object {place}",
            f"{file}: object {place} has no <{missing}>; expected <name> and <bndbox> with {', '.join(CORNERS)}",
        )
    x1, y1, x2, y2 = map(_number, texts)
    return VocObject(name, (x1, y1, x2, y2))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _first_pixel(pages: Sequence[VocImage], folder: str, report: Report) -> int:
    """1 as VOC counts; 0 where a box begins at 0, which only files counted from 0 have."""
    from_zero = [
        page.file for page in pages for entry in page.objects if min(entry.corners[:2]) == 0
    ]
    if not from_zero:
        return 1
    report.add(
        "note",
        "counted-from-zero",
        len(from_zero),
        from_zero[0],
        f"{folder}: boxes begin at pixel 0 (first: {from_zero[0]}), VOC counts from 1; they are taken as they are",
    )
    return 0
