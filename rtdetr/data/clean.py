# SPDX-License-Identifier: Apache-2.0
"""From what the files of a split say to annotations that hold: sizes from the images, boxes inside them.

N images, T boxes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import home_path
from ..images.io import load_image
from ..images.names import is_local_path
from .annotations import Annotations, BoolArray, FileNames, IntArray
from .findings import Report, Severity, number
from .header_cache import Header, HeaderCache
from .headers import HeaderFault, read_header, read_headers
from .options import ReadOptions
from .turning import turn_boxes
from .unchecked import UncheckedSplit

__all__ = ["CleanSplit", "clean_split"]

FloatArray = npt.NDArray[np.float64]

OVERHANG = 1.0
"""Pixels that a box may stand out of an image whose declared size is wrong, and still fit: a coordinate rounded up."""
VISIBLE_OVERHANG = 1e-2
"""Pixels from which on a box that was clipped is counted; less is the rounding of fractions."""
SHOWN = 10
"""Names in a sentence; the report has them all."""
SIZE_ENDS = {
    "warning": "the file's size counts, and the boxes fit into it",
    "error": "boxes do not fit into the file's; annotate these images again, or use those annotated",
}


@dataclass(frozen=True)
class CleanSplit:
    """Annotations, and what the heads of their images said.

    Args:
        annotations: N images.
        contents: [N] hashes of some of each file; 0 where images are no files.
        positions: [N] places in the split that was read.
    """

    annotations: Annotations
    contents: IntArray
    positions: IntArray


@dataclass
class Boxes:
    """The boxes that are left, by image, and their places [T] in the list that was read."""

    images: IntArray
    corners: FloatArray
    classes: IntArray
    crowds: BoolArray
    places: IntArray

    def of(self, image: int) -> slice:
        """The boxes of an image."""
        start, end = np.searchsorted(self.images, [image, image + 1]).tolist()
        return slice(start, end)

    def keep(self, chosen: BoolArray | IntArray) -> None:
        """Go on with the boxes of a mask [T], or of indices, alone."""
        self.images, self.corners = self.images[chosen], self.corners[chosen]
        self.classes, self.crowds = self.classes[chosen], self.crowds[chosen]
        self.places = self.places[chosen]


def clean_split(split: UncheckedSplit, report: Report, options: ReadOptions) -> CleanSplit:
    """What is usable of a split; what is not goes into the report."""
    _check_repeats(split, report)
    headers = _headers(split, options)
    is_there = _check_headers(split, headers, report, options)
    known = [header if isinstance(header, Header) else Header((0, 0)) for header in headers]
    boxes = Boxes(
        split.owners(),
        split.corners(),
        np.asarray(split.listed.classes, dtype=np.int64),
        split.crowds(),
        np.arange(len(split.listed.images)),
    )
    boxes.keep(np.argsort(boxes.images, kind="stable"))
    boxes.keep(is_there[boxes.images])
    sizes = np.asarray([header.upright for header in known], dtype=np.int64).reshape(-1, 2)
    if split.fractions:
        boxes.corners *= sizes[boxes.images][:, [1, 0, 1, 0]]
    _turn(split, known, boxes, report)
    _check_sizes(split, known, is_there, boxes, report)
    _clip(split, sizes, boxes, report, options)
    _drop_duplicates(split, boxes, report)
    return _assemble(split, known, sizes, is_there, boxes)


def _check_repeats(split: UncheckedSplit, report: Report) -> None:
    ids = [key for key, count in Counter(split.image_ids).items() if count > 1]
    if ids:
        report.add(
            "error",
            "repeated-image-id",
            len(ids),
            str(ids[0]),
            f"{split.source}: {number(len(ids), 'image id')} of several images (first: {ids[0]}); expected ids that "
            "differ",
        )
    # A program may well repeat an image, a list of files does so by mistake.
    files = Counter(split.names if split.load is None else ())
    repeated = [name for name, count in files.items() if count > 1]
    if repeated:
        report.add(
            "error",
            "repeated-file",
            len(repeated),
            repeated[0],
            f"{split.source}: {number(len(repeated), 'image')} listed more than once (first: {repeated[0]}); expected "
            "each once",
        )


def _headers(split: UncheckedSplit, options: ReadOptions) -> Sequence[Header | HeaderFault]:
    if split.sizes_hold:
        return [Header(size) for size in split.sizes]
    if split.load is not None:
        sources = ((split.load(index), name) for index, name in enumerate(split.names))
        return [_header_of(source, name, options.decode) for source, name in sources]
    paths = (os.path.join(split.root, name) for name in split.names)  # noqa: PTH118 -- odd names stay as they are
    cache = HeaderCache.of(split.root, split.split)
    return read_headers(paths, decode=options.decode, cache=cache)


def _header_of(source: Any, name: str, decode: bool) -> Header | HeaderFault:
    """Of an image that Python holds, or whose path it holds."""
    if is_local_path(source):
        return read_header(str(home_path(source)), decode=decode)
    try:
        image = load_image(source, name=name).image
    except DataError as error:
        return HeaderFault(False, str(error).removeprefix(f"{name}: "))
    return Header((image.height, image.width))


def _check_headers(
    split: UncheckedSplit,
    headers: Sequence[Header | HeaderFault],
    report: Report,
    options: ReadOptions,
) -> BoolArray:
    """[N], whether each image can be read."""
    faults = [
        (name, header)
        for name, header in zip(split.names, headers, strict=True)
        if isinstance(header, HeaderFault)
    ]
    for kind, is_missing, end in (
        ("missing-image", True, f"not found under {split.root}" if split.root else "not found"),
        ("unreadable-image", False, "cannot be read"),
    ):
        reasons = {name: fault.reason for name, fault in faults if fault.is_missing == is_missing}
        if reasons:
            names = [*reasons]
            first = names[0] if is_missing else f"{names[0]}: {reasons[names[0]]}"
            also = f"; also {', '.join(names[1:SHOWN])}" if len(names) > 1 else ""
            more = ", ..." if len(names) > SHOWN else ""
            total = number(len(headers), "image")
            report.add_droppable(
                "skip_missing",
                options.skip_missing,
                kind,
                len(names),
                names[0],
                f"{split.split}: {len(names):,} of {total} {end} (first: {first}{also}{more})",
                names,
            )
    return np.asarray([isinstance(header, Header) for header in headers], dtype=np.bool_)


def _turn(split: UncheckedSplit, headers: Sequence[Header], boxes: Boxes, report: Report) -> None:
    """Boxes of images that were annotated lying down, as EXIF says that they are stored, are turned with them."""
    lying = [
        index
        for index, header in enumerate(headers)
        if header.is_sideways and split.sizes[index] == header.size != header.upright
    ]
    for index in lying:
        own = boxes.of(index)
        boxes.corners[own] = turn_boxes(
            boxes.corners[own], headers[index].size, headers[index].orientation
        )
    if lying:
        first = split.names[lying[0]]
        report.add(
            "note",
            "turned",
            len(lying),
            first,
            f"{split.split}: {number(len(lying), 'image')} annotated as stored, not as EXIF turns them (first: "
            f"{first}); image and boxes are turned",
        )


def _check_sizes(
    split: UncheckedSplit,
    headers: Sequence[Header],
    is_there: BoolArray,
    boxes: Boxes,
    report: Report,
) -> None:
    """Where a declared size is not the image's, the image's counts, provided that the boxes fit into it."""
    odd = [
        index
        for index, header in enumerate(headers)
        if is_there[index]
        and split.sizes[index] not in ((0, 0), header.upright)
        and not (header.is_sideways and split.sizes[index] == header.size)
    ]
    by_severity: dict[Severity, list[int]] = {"warning": [], "error": []}
    for index in odd:
        height, width = headers[index].upright
        fits = boxes.corners[boxes.of(index)] <= np.asarray([width, height] * 2) + OVERHANG
        by_severity["warning" if fits.all() else "error"].append(index)
    for severity, images in by_severity.items():
        if images:
            first = images[0]
            said, own = (f"{w}x{h}" for h, w in (split.sizes[first], headers[first].upright))
            report.add(
                severity,
                "size-differs",
                len(images),
                split.names[first],
                f"{split.source}: {number(len(images), 'image')} of another size than declared (first: "
                f"{split.names[first]}, declared {said}, the file has {own}); {SIZE_ENDS[severity]}",
            )


def _clip(
    split: UncheckedSplit, sizes: IntArray, boxes: Boxes, report: Report, options: ReadOptions
) -> None:
    """Cut boxes at the border of their image; report and leave out those without an area there."""
    border = sizes[boxes.images][:, [1, 0, 1, 0]].astype(np.float64)
    clipped = boxes.corners.clip(0, border)
    is_good = _have_area(boxes.corners) & _have_area(clipped.astype(np.float32))
    bad = np.flatnonzero(~is_good)
    if len(bad):
        place = split.place_of(int(boxes.places[bad[0]]))
        fault = _describe_fault(boxes.corners[bad[0]], border[bad[0]])
        more = f" ({len(bad):,} such boxes in {split.split})" if len(bad) > 1 else ""
        report.add_droppable(
            "drop_bad_boxes",
            options.drop_bad_boxes,
            "bad-box",
            len(bad),
            place,
            f"{place}: {fault}{more}",
        )
    moved = np.abs(clipped[is_good] - boxes.corners[is_good]).max(1, initial=0)
    boxes.corners = clipped
    boxes.keep(is_good)
    cut = np.flatnonzero(moved > VISIBLE_OVERHANG)
    if len(cut):
        place = split.place_of(int(boxes.places[cut[0]]))
        sentence = f"{split.split}: {number(len(cut), 'box', 'boxes')} cut at the border of the image (first: {place})"
        report.add("note", "clipped", len(cut), place, sentence)


def _have_area(corners: npt.NDArray[np.floating]) -> BoolArray:
    """[T] from xyxy [T, 4]; a box with a NaN or an infinity has none."""
    with np.errstate(invalid="ignore"):
        is_open = corners[:, 2:] > corners[:, :2]
    has_area: BoolArray = np.isfinite(corners).all(1) & is_open.all(1)
    return has_area


def _describe_fault(box: FloatArray, border: FloatArray) -> str:
    if not np.isfinite(box).all():
        return "the box is not four finite numbers; expected a left, top, right and bottom side in pixels"
    x1, y1, x2, y2 = box.tolist()
    told = f"the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) px, {x2 - x1:g} wide and {y2 - y1:g} high,"
    if not _have_area(box[None])[0]:
        return f"{told} has no area; expected a width and height above 0"
    return f"{told} is outside the image of {border[0]:g}x{border[1]:g}; expected it inside"


def _drop_duplicates(split: UncheckedSplit, boxes: Boxes, report: Report) -> None:
    """Of boxes with the same image, class and sides the first is kept."""
    keys = np.column_stack(
        [boxes.images, boxes.classes, boxes.crowds, boxes.corners.astype(np.float32)]
    )
    _, first = np.unique(keys, axis=0, return_index=True)
    is_first = np.zeros(len(keys), dtype=np.bool_)
    is_first[first] = True
    repeated = np.flatnonzero(~is_first)
    if len(repeated):
        place = split.place_of(int(boxes.places[repeated[0]]))
        report.add(
            "note",
            "duplicate-box",
            len(repeated),
            place,
            f"{split.split}: {number(len(repeated), 'box', 'boxes')} with the class and sides of another one of the "
            f"image (first: {place}); counted once",
        )
        boxes.keep(is_first)


def _assemble(
    split: UncheckedSplit,
    headers: Sequence[Header],
    sizes: IntArray,
    is_there: BoolArray,
    boxes: Boxes,
) -> CleanSplit:
    total = len(split.names)
    counts = np.bincount(boxes.images, minlength=total)
    everything = Annotations(
        root=split.root,
        names=FileNames(split.names),
        image_ids=np.asarray(split.image_ids, dtype=np.int64),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes.corners.astype(np.float32),
        classes=boxes.classes,
        crowds=boxes.crowds,
        categories=split.categories,
    )
    positions = np.flatnonzero(is_there)
    contents = np.asarray([header.content for header in headers], dtype=np.int64)
    kept = everything if len(positions) == total else everything.subset(positions)
    return CleanSplit(kept, contents[positions], positions)
