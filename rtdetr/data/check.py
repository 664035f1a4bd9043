# SPDX-License-Identifier: Apache-2.0
"""What is wrong or odd with a data set as a whole: each check looks at clean annotations and adds findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .annotations import Annotations, BoolArray
from .clean import CleanSplit
from .findings import Report, Severity, number
from .holdout import shared_images
from .options import ReadOptions

__all__ = ["check_splits"]

TINY = 8
"""Pixels, the stride of the finest map: of a smaller side the detector sees less than one cell."""

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
                f"without a box in {split}",
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


def check_tiny(parts: Parts, report: Report, options: ReadOptions) -> None:
    """Boxes that are hardly to be seen when their image has been resized."""
    for split, part in parts.items():
        owners = np.repeat(np.arange(len(part)), part.counts())
        sides = part.boxes[:, 2:] - part.boxes[:, :2]
        shortest = (sides / part.sizes[owners][:, ::-1]).min(1, initial=math.inf) * options.imgsz
        tiny = np.flatnonzero(shortest < TINY)
        if len(tiny):
            first = part.names[int(owners[tiny[0]])]
            share = len(tiny) / len(shortest)
            enough = options.imgsz * TINY / float(np.quantile(shortest, 0.05))
            side = math.ceil(enough / 32) * 32
            report.add(
                "note",
                "tiny-boxes",
                len(tiny),
                first,
                f"{split}: {number(len(tiny), 'box', 'boxes')} ({share:.0%}) narrower than {TINY} px at "
                f"{options.imgsz}x{options.imgsz} (first: {first})"
                + (
                    f"; 95 % of the boxes are wider at imgsz {side:,}"
                    if side > options.imgsz
                    else ""
                ),
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
    check_tiny,
)
