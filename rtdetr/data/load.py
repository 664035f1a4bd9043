# SPDX-License-Identifier: Apache-2.0
"""A data set by its path: read, cleaned, checked, and split into train and val."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataError
from ..files import home_path
from .annotations import Annotations, Categories, IntArray
from .check import check_splits
from .clean import CleanSplit, clean_split
from .coco import CocoReader
from .findings import FatalFindingError, Report, number
from .fingerprint import fingerprint_categories, fingerprint_split
from .holdout import FEWEST_IMAGES, hold_out
from .layouts import Readers, find_layout
from .options import ReadOptions
from .sequences import SequenceReader
from .unchecked import UncheckedSplit

__all__ = ["DataSource", "DataSplits", "Split", "check_data", "load_data"]

DataSource: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any]
"""A folder or file of a known layout; an iterable of (image, target); or one of them for "train" and for "val"."""


@dataclass(frozen=True)
class Split:
    """Annotated images.

    Args:
        annotations: N images.
        load: returns image i; None where images are files.
        contents: [N] hashes of some of each file, 0 where images are no files.
    """

    annotations: Annotations
    load: Callable[[int], Any] | None = None
    contents: IntArray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    def __post_init__(self) -> None:
        if not len(self.contents):
            object.__setattr__(self, "contents", np.zeros(len(self), np.int64))

    def __len__(self) -> int:
        return len(self.annotations)

    def image(self, index: int) -> Any:
        """What :func:`rtdetr.images.io.load_image` makes image ``index`` of."""
        return self.annotations.path(index) if self.load is None else self.load(index)


@dataclass(frozen=True)
class DataSplits:
    """A data set.

    Args:
        layout: the name of its form.
        train: None where it could not be read; the report says why.
        val: None where there is none.
        report: what is wrong or odd.
    """

    layout: str
    train: Split | None
    val: Split | None
    report: Report

    def fingerprint(self) -> dict[str, str]:
        """Short texts that change with what is trained on and measured, wherever the files are.

        The parts are "classes", "train images", "train boxes", "val images" and "val boxes", each a count and a hash;
        :func:`~rtdetr.data.fingerprint.list_changes` says how two fingerprints differ.
        """
        both = {"train": self.train, "val": self.val}
        parts: dict[str, str] = {}
        for name, split in both.items():
            if split is not None:
                parts |= fingerprint_categories(split.annotations.categories)
                parts |= fingerprint_split(name, split.annotations, split.contents)
        return parts


@dataclass(frozen=True)
class Chosen:
    """Images of a sequence by their places, with a name of its own so that it can be sent to a worker."""

    load: Callable[[int], Any]
    positions: IntArray

    def __call__(self, index: int) -> Any:
        return self.load(int(self.positions[index]))


def load_data(
    source: DataSource,
    options: ReadOptions | None = None,
    *,
    names: Sequence[str] | None = None,
    strict: bool = False,
) -> DataSplits:
    """The annotated images at ``source``, ready to train on.

    Args:
        source: see :data:`DataSource`.
        options: how to read them.
        names: of the classes, for images from memory.
        strict: whether a warning is an error.

    Raises:
        DataError: if anything is wrong; the message has a sentence for each kind.
    """
    splits = check_data(source, options, names=names)
    splits.report.raise_failures(strict)
    return splits


def check_data(
    source: DataSource,
    options: ReadOptions | None = None,
    *,
    names: Sequence[str] | None = None,
) -> DataSplits:
    """As :func:`load_data`, but what is wrong is in the report alone.

    Raises:
        DataError: if there is nothing at ``source``, or its layout is unknown.
    """
    options = options or ReadOptions()
    layout, readers = _find(source, names)
    report = Report()
    unchecked = {split: _read(reader, report, options) for split, reader in readers.items()}
    train, val = unchecked["train"], unchecked.get("val")
    if train is None:
        return DataSplits(layout, None, None, report)
    if val is not None:
        _align(train.categories, val, report)
    clean_train = clean_split(train, report, options)
    if "val" in readers:
        clean_val = clean_split(val, report, options) if val is not None else None
    else:
        clean_train, clean_val = _hold_out(clean_train, report, options)
    if options.no_empty:
        clean_train = _drop_empty(clean_train, report)
    check_splits(clean_train, clean_val, report, options)
    return DataSplits(
        layout,
        _finish(clean_train, train),
        _finish(clean_val, val or train) if clean_val else None,
        report,
    )


def _find(source: DataSource, names: Sequence[str] | None) -> tuple[str, Readers]:
    if isinstance(source, (str, os.PathLike)):
        layout, readers = find_layout(home_path(source))
        return layout.name, readers
    parts = source if isinstance(source, Mapping) else {"train": source}
    if "train" not in parts or set(parts) - {"train", "val"}:
        raise DataError(f'data: expected "train" and perhaps "val", got {sorted(map(str, parts))}')
    return "Python", {split: _part(split, part, names) for split, part in parts.items()}


def _part(split: str, part: Any, names: Sequence[str] | None) -> Any:
    if isinstance(part, (str, os.PathLike)):
        reader = find_layout(home_path(part))[1]["train"]
        if not isinstance(reader, CocoReader):
            raise DataError(
                f"data: {split}: expected a COCO json or images from memory, got {part}"
            )
        return CocoReader(split, reader.file, reader.roots)
    # A Dataset of torch is a sequence that is not iterable by its type.
    is_sequence = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    if not (is_sequence or isinstance(part, Iterable)):
        raise DataError(
            f"data: {split}: expected a sequence of (image, target), got {type(part).__name__}"
        )
    return SequenceReader(split, part if is_sequence else list(part), names)


def _read(reader: Any, report: Report, options: ReadOptions) -> UncheckedSplit | None:
    try:
        split: UncheckedSplit = reader(report, options)
    except FatalFindingError as error:
        report.insert(error.finding)
        return None
    return split


def _align(categories: Categories, val: UncheckedSplit, report: Report) -> None:
    """Number the classes of val as train does, by their names."""
    if val.categories == categories:
        return
    class_of = {name: index for index, name in enumerate(categories.names)}
    unknown = [name for name in val.categories.names if name not in class_of]
    if unknown:
        report.add(
            "error",
            "other-categories",
            len(unknown),
            unknown[0],
            f'{val.source}: the class "{unknown[0]}" is not in train; expected {", ".join(categories.names[:20])}',
        )
    else:
        report.add(
            "note",
            "other-category-ids",
            len(val.categories),
            val.source,
            f"{val.source}: other category ids or another order than in train; classes are matched by their names",
        )
    numbers = [class_of.get(name, 0) for name in val.categories.names]
    val.listed.classes = [numbers[label] for label in val.listed.classes]
    val.categories = categories


def _hold_out(
    split: CleanSplit, report: Report, options: ReadOptions
) -> tuple[CleanSplit, CleanSplit | None]:
    names = list(split.annotations.names)
    fraction = options.val_fraction
    if not fraction or not names:
        return split, None
    if len(names) < FEWEST_IMAGES:
        report.add(
            "error",
            "too-few-to-split",
            len(names),
            split.annotations.root,
            f"{split.annotations.root or 'data'}: no val split, and {len(names)} images are too few to hold some out; "
            f"expected a val split, at least {FEWEST_IMAGES} images, or none held out (val_fraction 0)",
        )
        return split, None
    train, val = hold_out(names, fraction, options.seed)
    report.add(
        "note",
        "held-out",
        len(val),
        names[val[0]],
        f"no val split: {len(val):,} of {len(names):,} images are held out, by a hash of their names and seed "
        f"{options.seed}",
    )
    return _choose(split, train), _choose(split, val)


def _drop_empty(train: CleanSplit, report: Report) -> CleanSplit:
    """Without images that have nothing to learn; all of them where there is nothing else, which is an error anyway."""
    has_objects = train.annotations.learnable_counts() > 0
    empty = np.flatnonzero(~has_objects)
    if not len(empty) or not has_objects.any():
        return train
    first = train.annotations.names[int(empty[0])]
    sentence = f"train: {number(len(empty), 'image')} without an object to learn (first: {first}); left out"
    report.add("note", "empty-image", len(empty), first, sentence)
    return _choose(train, np.flatnonzero(has_objects))


def _choose(split: CleanSplit, images: IntArray) -> CleanSplit:
    return CleanSplit(
        split.annotations.subset(images), split.contents[images], split.positions[images]
    )


def _finish(split: CleanSplit, source: UncheckedSplit) -> Split:
    load = None if source.load is None else Chosen(source.load, split.positions)
    return Split(split.annotations, load, split.contents)
