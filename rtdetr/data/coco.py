# SPDX-License-Identifier: Apache-2.0
"""COCO's json: images, annotations with [x, y, width, height], and categories with ids of any kind."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import is_file, is_folder
from .annotations import Categories
from .findings import Report, fail, number
from .names import check_names
from .options import ReadOptions
from .texts import read_text
from .unchecked import BoxList, UncheckedSplit

__all__ = ["CocoReader"]

Entry = Mapping[str, Any]

EXPECTED = 'expected a COCO file: an object with "images", "annotations" and "categories"'
PROBES = 50
LONGEST_WORD = 8
"""Of what a file that is cut off may end with: false, -Infinity or \\u00fc without its last letter."""
NO_BOX = (float("nan"),) * 4
"""Stands for a box that is none; it is found and reported with the others that have no area."""


@dataclass(frozen=True)
class CocoReader:
    """Reads a split from one json.

    Args:
        split: "train" or "val".
        file: the json.
        roots: folders that may hold the images; the first one that has some of them is taken.
    """

    split: str
    file: Path
    roots: Sequence[Path]

    def __call__(self, report: Report, options: ReadOptions) -> UncheckedSplit:
        source = str(self.file)
        document = load_json(self.file)
        check_kind(document, source)
        categories = read_categories(document["categories"], source)
        check_names(categories.names, source, report)
        images = _entries(document["images"], "images", source)
        ids = _unique_ids(images, source)
        files = _unique_files(images, source)
        root, names = find_files(files, self.roots)
        boxes = self._read_boxes(
            document,
            dict(zip(ids, range(len(ids)), strict=True)),
            files,
            categories,
            report,
            options,
        )
        return UncheckedSplit(
            self.split,
            source,
            str(root),
            names,
            ids,
            [_size(image) for image in images],
            boxes,
            categories,
            lambda image, place: f"{source}: annotations[{place}] ({files[image]})",
        )

    def _read_boxes(
        self,
        document: Entry,
        image_of: dict[int, int],
        files: Sequence[str],
        categories: Categories,
        report: Report,
        options: ReadOptions,
    ) -> BoxList:
        annotations = _entries(document["annotations"], "annotations", str(self.file))
        self._check_images(annotations, image_of)
        self._note_repeated_ids(annotations, report)
        class_of = categories.class_of()
        boxes, unknown = BoxList(), []
        for place, entry in enumerate(annotations):
            image, label = image_of[entry["image_id"]], _lookup(class_of, entry.get("category_id"))
            if label is None:
                unknown.append((entry.get("category_id"), files[image]))
            else:
                crowd = entry.get("iscrowd") in (1, True)
                boxes.add(image, _corners(entry.get("bbox")), label, place, crowd)
        self._report_unknown(unknown, categories, report, options)
        return boxes

    def _check_images(self, annotations: Sequence[Entry], image_of: dict[int, int]) -> None:
        lost = [
            i
            for i, entry in enumerate(annotations)
            if _lookup(image_of, entry.get("image_id")) is None
        ]
        if lost:
            first = f"annotations[{lost[0]}]"
            raise fail(
                "unknown-image",
                first,
                f'{self.file}: {number(len(lost), "annotation")} of an image that is not in "images" (first: {first}, '
                f"image_id {annotations[lost[0]].get('image_id')!r}); expected the id of an image",
                len(lost),
            )

    def _note_repeated_ids(self, annotations: Sequence[Entry], report: Report) -> None:
        ids = [repr(entry["id"]) for entry in annotations if "id" in entry]
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            report.add(
                "note",
                "repeated-annotation-id",
                len(repeated),
                repeated[0],
                f"{self.file}: {number(len(repeated), 'annotation id')} used more than once (first: {repeated[0]}); "
                "all of these boxes count",
            )

    def _report_unknown(
        self,
        unknown: list[tuple[Any, str]],
        categories: Categories,
        report: Report,
        options: ReadOptions,
    ) -> None:
        if not unknown:
            return
        ids = list(dict.fromkeys(repr(category) for category, _ in unknown))
        shown = ", ".join(ids[:10]) + (", ..." if len(ids) > 10 else "")
        boxes, first = number(len(unknown), "box", "boxes"), unknown[0][1]
        report.add_droppable(
            "ignore_unknown_classes",
            options.ignore_unknown_classes,
            "unknown-category",
            len(unknown),
            first,
            f"{self.file}: category_id {shown} ({boxes}, first: image {first}) is not in "
            f'"categories" {_shorten(categories.ids)}',
        )


def load_json(file: Path) -> Any:
    """The document in a file; a byte order mark is allowed.

    Raises:
        FatalFindingError: if there is none, or it is cut off, or no JSON.
    """
    text = read_text(file, EXPECTED)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = "is cut off" if _is_cut(text, error) else "is not JSON"
        raise fail(
            "not-json",
            str(file),
            f"{file} line {error.lineno} column {error.colno}: {what} ({error.msg}); {EXPECTED}",
        ) from error
    except RecursionError as error:
        raise fail("not-json", str(file), f"{file}: nested too deeply; {EXPECTED}") from error


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text is JSON up to its end: what is missing there, or a text, number or word that ends too early."""
    is_json = text.lstrip()[:1] in ("{", "[")
    is_text = error.msg.startswith("Unterminated string")
    rest = text[error.pos :].rstrip()
    return is_json and (is_text or len(rest) < LONGEST_WORD)


def check_kind(document: Any, source: str) -> None:
    """Raise unless ``document`` is a COCO data set; say what it looks like instead.

    Raises:
        FatalFindingError: names the kind where it is known, else the keys.
    """
    keys = set(document) if isinstance(document, Mapping) else set()
    missing = [key for key in ("images", "annotations", "categories") if key not in keys]
    if not missing and not _looks_panoptic(document):
        return
    if missing == ["categories"]:
        raise fail("no-categories", source, f'{source}: has no "categories"; {EXPECTED}')
    raise fail(
        "other-json", source, f"{source}: looks like {_recognize(document, keys)}; {EXPECTED}"
    )


def _looks_panoptic(document: Entry) -> bool:
    annotations = document["annotations"]
    return (
        bool(annotations)
        and isinstance(annotations, list)
        and _has(annotations[0], "segments_info")
    )


def _has(value: Any, *keys: str) -> bool:
    return isinstance(value, Mapping) and all(key in value for key in keys)


# What tells a file that is not COCO's: the keys of the document, or of the first item of a list.
KINDS: tuple[tuple[bool, tuple[str, ...], str], ...] = (
    (
        True,
        ("image_id", "category_id", "score"),
        "a list of detections (COCO results), not of annotations",
    ),
    (True, ("image", "annotations"), "annotations of CreateML"),
    (True, ("data", "annotations"), "an export of Label Studio's own form"),
    (False, ("shapes", "imagePath"), "annotations of LabelMe, which has one file for each image"),
    (False, ("_via_img_metadata",), "a project of the VGG Image Annotator"),
    (False, ("images", "categories"), "a COCO file of a test set, without annotations"),
    (False, ("images", "annotations", "categories"), "COCO's panoptic form, without boxes"),
    (False, ("info", "item"), "annotations of Darwin (V7)"),
)


def _recognize(document: Any, keys: set[str]) -> str:
    is_list = isinstance(document, list)
    item = document[0] if is_list and document else document
    for in_list, known, name in KINDS:
        if in_list == is_list and _has(item, *known):
            return name
    if is_list:
        return f"a list of {number(len(document), 'item')}"
    return (
        f"an object with {', '.join(sorted(map(repr, keys))[:6]) or 'nothing in it'}"
        if keys or (isinstance(document, Mapping))
        else f"a single {type(document).__name__}"
    )


def read_categories(entries: Any, source: str) -> Categories:
    """The classes, in the order of the file.

    Raises:
        FatalFindingError: if there are none, one has no whole id or no name, or two have one id.
    """
    if not entries or not isinstance(entries, list):
        raise fail(
            "no-categories",
            source,
            f'{source}: "categories" is empty; expected at least one {{"id", "name"}}',
        )
    for place, entry in enumerate(entries):
        if (
            not _has(entry, "id", "name")
            or not _is_id(entry["id"])
            or not isinstance(entry["name"], str)
        ):
            raise fail(
                "bad-category",
                f"categories[{place}]",
                f'{source}: categories[{place}] is {_short(entry)}; expected {{"id": whole number, "name": text}}',
            )
    ids = [int(entry["id"]) for entry in entries]
    repeated = _first_repeated(ids)
    if repeated is not None:
        raise fail(
            "repeated-category-id",
            str(ids[repeated]),
            f"{source}: categories[{repeated}] has the id {ids[repeated]} of another category; expected different ids",
        )
    return Categories(tuple(ids), tuple(entry["name"] for entry in entries))


def find_files(names: Sequence[str], roots: Sequence[Path]) -> tuple[Path, list[str]]:
    """The first of ``roots`` that holds one of a sample of the images, and the names as the file system has them.

    A name with backslashes that does not exist as it is was written on Windows: it is read with slashes.
    """
    probe = names[:: max(1, len(names) // PROBES)]
    plain = [name.replace("\\", "/") for name in probe]
    holding = (root for root in roots if any(is_file(root / name) for name in (*probe, *plain)))
    existing = (root for root in roots if is_folder(root))
    root = next(holding, None) or next(existing, roots[-1])
    return root, [
        name if "\\" not in name or is_file(root / name) else name.replace("\\", "/")
        for name in names
    ]


def _entries(values: Any, key: str, source: str) -> Sequence[Entry]:
    if isinstance(values, list):
        for place, value in enumerate(values):
            if not isinstance(value, Mapping):
                raise fail(
                    "bad-entry",
                    f"{key}[{place}]",
                    f"{source}: {key}[{place}] is {_short(value)}; expected an object",
                )
        return values
    raise fail(
        "bad-entry", key, f'{source}: "{key}" is {_short(values)}; expected a list of objects'
    )


def _unique_ids(images: Sequence[Entry], source: str) -> list[int]:
    for place, image in enumerate(images):
        if not _is_id(image.get("id")):
            raise fail(
                "bad-image",
                f"images[{place}]",
                f"{source}: images[{place}] has the id {image.get('id')!r}; expected a whole number",
            )
    ids = [int(image["id"]) for image in images]
    repeated = _first_repeated(ids)
    if repeated is not None:
        raise fail(
            "repeated-image-id",
            str(ids[repeated]),
            f"{source}: images[{repeated}] ({images[repeated].get('file_name')}) has the id {ids[repeated]} of another "
            "image; expected ids that differ",
        )
    return ids


def _unique_files(images: Sequence[Entry], source: str) -> list[str]:
    for place, image in enumerate(images):
        name = image.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise fail(
                "bad-image",
                f"images[{place}]",
                f"{source}: images[{place}] has the file_name {name!r}; expected the name of a file",
            )
    names = [image["file_name"] for image in images]
    repeated = _first_repeated([os.path.normpath(name) for name in names])
    if repeated is not None:
        raise fail(
            "repeated-file",
            names[repeated],
            f"{source}: images[{repeated}] has the file_name {names[repeated]} of another image; expected one entry "
            "for each file",
        )
    return names


def _first_repeated(values: Sequence[Any]) -> int | None:
    known = set()
    for place, value in enumerate(values):
        if value in known:
            return place
        known.add(value)
    return None


def _size(image: Entry) -> tuple[int, int]:
    sides = image.get("height"), image.get("width")
    known = all(isinstance(side, (int, float)) and 0 < side < 2**31 for side in sides)
    return (int(sides[0]), int(sides[1])) if known else (0, 0)  # type: ignore[arg-type]


def _is_id(value: Any) -> bool:
    """A whole number; one that some tool wrote as 7.0 is one too, a truth is none."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and not isinstance(value, bool) and abs(value) < 2**63


def _lookup(known: Mapping[int, int], key: Any) -> int | None:
    """What ``key`` stands for."""
    return known.get(key) if _is_id(key) else None


def _corners(box: Any) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return NO_BOX
    return x, y, x + width, y + height


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shorten(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:20]))
    return f"[{shown}{', ...' if len(ids) > 20 else ''}]"
