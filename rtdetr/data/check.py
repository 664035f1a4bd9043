# SPDX-License-Identifier: Apache-2.0
"""What is wrong or odd with a data set as a whole: each check looks at clean annotations and adds findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .annotations import Annotations, BoolArray
from .clean import CleanSplit
from .findings import Report, Severity, number
from .geometry import SMALLEST_SIDE
from .holdout import shared_images
from .options import ReadOptions

__all__ = ["check_splits"]

SMALL = (
    ("vanishing-boxes", SMALLEST_SIDE, "of which nothing is learnt"),
    ("tiny-boxes", 8.0, "less than a cell of the finest map of the network"),
)
"""Kinds of boxes by their shorter side after resizing: below how many pixels, and what that means."""

ENDS = {"train": "", "val": ", which no average precision counts"}
"""What follows from a class without boxes in a split."""

Parts = Mapping[str, Annotations]


def check_splits(
    train: CleanSplit, val: CleanSplit | None, report: Report, options: ReadOptions
) -> None:
    """Run all checks."""
    parts = {"train": train.annotations} | ({"val": val.annotations} if val else {})
    for check in CHECKS:
        check(parts, report, options)
    if val is not None:
        _check_shared(train, val, report)


def check_empty(parts: Parts, report: Report, options: ReadOptions) -> None:
    for split, part in parts.items():
        if not len(part):
            report.add("error", "no-images", 1, split, f"{split}: 0 images; expected at least one")
    train = parts["train"]
    if len(train) and not (~train.crowds).any():
        report.add(
            "error",
            "no-boxes",
            1,
            "train",
            f"train: no box in any of its {number(len(train), 'image')}; expected at least one that is no crowd",
        )


def check_classes(parts: Parts, report: Report, options: ReadOptions) -> None:
    """Classes without boxes: everywhere, or in one split alone."""
    counts = {split: part.class_counts() for split, part in parts.items()}
    names = parts["train"].categories.names
    unused: BoolArray = np.sum(list(counts.values()), axis=0) == 0
    _add_names(
        report,
        "note",
        "unused-category",
        names,
        unused,
        "without a box anywhere; the model learns to give it nothing",
    )
    for split, count in counts.items():
        if count.any():
            _add_names(
                report,
                "warning",
                "class-without-boxes",
                names,
                (count == 0) & ~unused,
                f"without a box in {split}{ENDS[split]}",
            )


def _add_names(
    report: Report,
    severity: Severity,
    kind: str,
    names: tuple[str, ...],
    chosen: BoolArray,
    end: str,
) -> None:
    classes = [names[index] for index in np.flatnonzero(chosen)]
    if classes:
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        report.add(
            severity,
            kind,
            len(classes),
            classes[0],
            f"{number(len(classes), 'class', 'classes')} {end}: {shown}",
        )


def check_queries(parts: Parts, report: Report, options: ReadOptions) -> None:
    for split, part in parts.items():
        counts = part.learnable_counts()
        over = np.flatnonzero(counts > options.queries)
        if len(over):
            most = int(counts.max())
            first = part.names[over[0]]
            report.add(
                "warning",
                "more-boxes-than-queries",
                len(over),
                first,
                f"{split}: {number(len(over), 'image')} with more boxes than the {options.queries} queries of the "
                f"model (first: {first}, most: {most:,}); use at least {most:,} queries to find them all",
            )


def check_crowds(parts: Parts, report: Report, options: ReadOptions) -> None:
    for split, part in parts.items():
        only = np.flatnonzero((part.learnable_counts() == 0) & (part.counts() > 0))
        if len(only):
            first = part.names[only[0]]
            report.add(
                "note",
                "crowd-only",
                len(only),
                first,
                f"{split}: {number(len(only), 'image')} with crowds alone (first: {first}); nothing is learnt "
                "there, though something is to be seen",
            )


def check_small(parts: Parts, report: Report, options: ReadOptions) -> None:
    """Boxes that vanish, or are hardly to be seen, when their image has been resized."""
    for split, part in parts.items():
        owners = np.repeat(np.arange(len(part)), part.counts())
        sides = part.boxes[:, 2:] - part.boxes[:, :2]
        shortest = (sides / part.sizes[owners][:, ::-1]).min(1, initial=math.inf) * options.imgsz
        for (kind, limit, end), lowest in zip(SMALL, (0.0, SMALLEST_SIDE), strict=True):
            small = np.flatnonzero((lowest <= shortest) & (shortest < limit))
            if len(small):
                first = part.names[int(owners[small[0]])]
                share = len(small) / len(shortest)
                enough = options.imgsz * limit / float(np.median(shortest[small]))
                side = math.ceil(enough / 32) * 32
                report.add(
                    "warning",
                    kind,
                    len(small),
                    first,
                    f"{split}: {number(len(small), 'box', 'boxes')} ({share:.0%}) narrower than {limit:g} px at "
                    f"{options.imgsz}x{options.imgsz} (first: {first}), {end}; half of them are wide enough at imgsz "
                    f"{side:,}",
                )


def _check_shared(train: CleanSplit, val: CleanSplit, report: Report) -> None:
    pairs = shared_images(train, val)
    if pairs:
        total = number(len(val.annotations), "image")
        what = (
            "val is part of train"
            if len(pairs) == len(val.annotations)
            else "val and train overlap"
        )
        report.add(
            "warning",
            "shared-images",
            len(pairs),
            pairs[0][1],
            f"{what}: {len(pairs):,} of {total} of val are in train too (first: {pairs[0][1]}, the content of "
            f"{pairs[0][0]}); what val measures is then learnt by heart",
        )


CHECKS: tuple[Callable[[Parts, Report, ReadOptions], None], ...] = (
    check_empty,
    check_classes,
    check_queries,
    check_crowds,
    check_small,
)
