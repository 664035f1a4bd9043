# SPDX-License-Identifier: Apache-2.0
"""The numbers of an evaluation, as data, as JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from .curves import Confusion

__all__ = ["ClassMetrics", "Curves", "Evaluation"]

MOST_CLASSES = 20
"""Rows of a table that fits on a screen."""

LONGEST_NAME = 32
LONGEST_LIST = 64
"""Letters on a screen."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassMetrics:
    """How well a class is found. What cannot be measured is None.

    Args:
        name: of the class.
        images: that have it.
        boxes: of it, without crowds.
        ap: mean of the average precision at IoUs of 0.5, 0.55 ... 0.95, 0..1.
        ap50: average precision at an IoU of 0.5.
        precision: share of the predictions that are right, at the threshold of the evaluation and an IoU of 0.5.
        recall: share of the boxes that are found, there.
        f1: harmonic mean of both.
    """

    name: str
    images: int
    boxes: int
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class Curves:
    """What plots show, at an IoU of 0.5.

    Args:
        recall: [101].
        precision: [101], mean of the classes that have boxes.
        class_precision: [K, 101], by class; NaN for one without boxes.
        threshold: [201] scores.
        precision_above, recall_above, f1_above: [201], of all predictions with a greater score.
    """

    recall: FloatArray
    precision: FloatArray
    class_precision: FloatArray
    threshold: FloatArray
    precision_above: FloatArray
    recall_above: FloatArray
    f1_above: FloatArray

    def as_dict(self) -> dict[str, list[Any]]:
        """The curves of all classes together, rounded for a file."""
        return {
            name: np.round(values, 5).tolist()
            for name, values in vars(self).items()
            if name != "class_precision"
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good predictions are. What cannot be measured is None.

    Classes count equally in the means; those without a box are left out.

    Args:
        images: of the split.
        boxes: to be found, without crowds.
        predictions: how many.
        max_detections: of a class in an image that count.
        ap: mean average precision by COCO's rules, 0..1.
        ap50, ap75: at one IoU.
        ap_small, ap_medium, ap_large: of boxes up to 32x32, up to 96x96, and larger, in pixels of the original image.
        threshold: score above which the F1 of all predictions together is best, at an IoU of 0.5.
        precision, recall, f1: there.
        classes: each class that was measured, in the order of the data set.
        missing: classes of the data set that the model does not have; they are not measured.
        curves: for plots.
        confusion: what boxes were taken for, above the threshold.
    """

    images: int
    boxes: int
    predictions: int
    max_detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    classes: tuple[ClassMetrics, ...]
    missing: tuple[str, ...]
    curves: Curves = field(repr=False)
    confusion: Confusion = field(repr=False)

    @property
    def without_boxes(self) -> tuple[str, ...]:
        """Classes that no image has; they are in no mean."""
        return tuple(one.name for one in self.classes if not one.boxes)

    def numbers(self) -> dict[str, float | None]:
        """The numbers of all classes together, by name, in a fixed order: a row of a table of epochs."""
        names = (
            *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
            *("precision", "recall", "f1", "threshold"),
        )
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """All of it, JSON types only."""
        return {
            "images": self.images,
            "boxes": self.boxes,
            "predictions": self.predictions,
            "max_detections": self.max_detections,
            **self.numbers(),
            "classes": [asdict(one) for one in self.classes],
            "classes_without_boxes": list(self.without_boxes),
            "classes_missing_in_model": list(self.missing),
            "confusion": self.confusion.as_list(),
            "curves": self.curves.as_dict(),
        }

    def lines(self, most_classes: int = MOST_CLASSES) -> list[str]:
        """What is to be known on one screen; of more classes than that, the weakest."""
        return [*self._table(most_classes), "", *self._summary()]

    def _table(self, most_classes: int) -> list[str]:
        measured = [one for one in self.classes if one.boxes]
        shown = measured
        if len(measured) > most_classes:
            weakest = sorted(measured, key=lambda one: one.ap or 0.0)[:most_classes]
            shown = [one for one in measured if one in weakest]
        total = ClassMetrics(
            "all", self.images, self.boxes, self.ap, self.ap50, self.precision, self.recall, self.f1
        )
        rows = [_cells(one) for one in (total, *shown)]
        width = max(len(row[0]) for row in (HEAD, *rows))
        lines = [
            row[0].ljust(width)
            + "".join(cell.rjust(size) for cell, size in zip(row[1:], WIDTHS, strict=True))
            for row in (HEAD, *rows)
        ]
        if len(shown) < len(measured):
            lines.append(f"the {len(shown)} weakest of {len(measured):,} classes")
        return lines

    def _summary(self) -> list[str]:
        sizes = {"small": self.ap_small, "medium": self.ap_medium, "large": self.ap_large}
        by_size = "  ".join(f"{name} {_number(value)}" for name, value in sizes.items())
        lines = [f"AP75 {_number(self.ap75)}  AP by size: {by_size}"]
        if self.threshold is not None:
            lines.append(
                f"best F1 {_number(self.f1)} above a score of {self.threshold:.3f}: precision "
                f"{_number(self.precision)}, recall {_number(self.recall)}"
            )
        if not self.boxes:
            lines.append("nothing to measure: no image has a box")
        elif self.without_boxes:
            lines.append(f"in no mean, since no image has one: {_listed(self.without_boxes)}")
        if self.missing:
            lines.append(
                f"not measured, since the model has no such class: {_listed(self.missing)}"
            )
        return lines


HEAD = ("class", "images", "boxes", "AP", "AP50", "P", "R", "F1")
WIDTHS = (9, 9, 8, 8, 8, 8, 8)


def _cells(one: ClassMetrics) -> tuple[str, ...]:
    numbers = (one.ap, one.ap50, one.precision, one.recall, one.f1)
    name = one.name if len(one.name) <= LONGEST_NAME else f"{one.name[: LONGEST_NAME - 3]}..."
    return (name, f"{one.images:,}", f"{one.boxes:,}", *map(_number, numbers))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _listed(names: Sequence[str]) -> str:
    lengths = accumulate(len(name) + 2 for name in names)
    shown = max(1, sum(length <= LONGEST_LIST for length in lengths))
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more else "")
