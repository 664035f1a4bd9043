# SPDX-License-Identifier: Apache-2.0
"""From predictions and annotations to numbers.

P predictions, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data import Annotations
from ..errors import UsageError
from ..inference.options import check_whole
from .average_precision import AREAS, RECALLS, THRESHOLDS, precision_curves
from .curves import GRID, Counts, ScoreCurves, confuse
from .matching import Matches, match_boxes, owners
from .metrics import ClassMetrics, Curves, Evaluation
from .predictions import PredictionTable

__all__ = ["evaluate"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def evaluate(
    table: PredictionTable,
    annotations: Annotations,
    *,
    max_detections: int,
    missing: Collection[int] = (),
) -> Evaluation:
    """How good predictions are, by COCO's rules.

    Args:
        table: predictions, whose classes are those of ``annotations``.
        annotations: N images, with or without boxes; crowds are regions to ignore.
        max_detections: of a class in an image; of more, the best count.
        missing: classes that the model does not have, and that are not measured.

    Raises:
        UsageError: if a prediction has an image or a class that there is not.
        MissingExtraError: if faster-coco-eval is not installed.
    """
    check_whole("max_detections", max_detections)
    _check_range("images", table.images, len(annotations))
    _check_range("classes", table.classes, len(annotations.categories))
    _check_range("missing", np.asarray(list(missing), np.int64), len(annotations.categories))
    annotations = _without_classes(annotations, missing)
    counted = _best_of_class(table, max_detections)
    precision = precision_curves(counted, annotations, max_detections)
    matches = match_boxes(counted, annotations)
    scores = _score_curves(counted, matches, annotations)
    best = scores.best_threshold()
    threshold = 1.0 if best is None else best
    totals = scores.above(threshold)
    has_boxes = scores.boxes > 0
    names = annotations.categories.names
    metrics = _class_metrics(counted, matches, annotations, precision, threshold)
    return Evaluation(
        images=len(annotations),
        boxes=scores.boxes,
        predictions=len(table),
        max_detections=max_detections,
        **_average_precisions(precision),
        threshold=best,
        precision=totals.precision if has_boxes else None,
        recall=totals.recall if has_boxes else None,
        f1=totals.f1 if has_boxes else None,
        classes=tuple(one for index, one in enumerate(metrics) if index not in missing),
        missing=tuple(name for index, name in enumerate(names) if index in missing),
        curves=_curves(precision, scores),
        confusion=confuse(counted, matches, annotations, threshold),
    )


def _check_range(name: str, values: npt.NDArray[np.int64], total: int) -> None:
    outside = values[(values < 0) | (values >= total)]
    if len(outside):
        raise UsageError(f"{name}: expected numbers within 0..{total - 1}, got {outside[0]}")


def _without_classes(annotations: Annotations, classes: Collection[int]) -> Annotations:
    """The same images and categories, without the boxes of some classes."""
    keep = ~np.isin(annotations.classes, list(classes))
    return replace(
        annotations,
        starts=np.concatenate([[0], np.cumsum(keep)])[annotations.starts],
        boxes=annotations.boxes[keep],
        classes=annotations.classes[keep],
        crowds=annotations.crowds[keep],
    )


def _best_of_class(table: PredictionTable, limit: int) -> PredictionTable:
    """The table with at most ``limit`` predictions of each class in each image."""
    order = np.lexsort((-table.scores, table.classes, table.images))
    images, classes = table.images[order], table.classes[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = (images[1:] != images[:-1]) | (classes[1:] != classes[:-1])
    firsts = np.flatnonzero(is_first)
    ranks = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    return table.select(np.sort(order[ranks < limit]))


def _score_curves(
    table: PredictionTable, matches: Matches, annotations: Annotations
) -> ScoreCurves:
    """Of the classes that have boxes."""
    counts = annotations.class_counts()
    rows = ~matches.ignored & (counts[table.classes] > 0)
    return ScoreCurves.of(table.scores[rows], matches.boxes[rows] >= 0, int(counts.sum()))


def _average_precisions(precision: FloatArray) -> dict[str, float | None]:
    at_50, at_75 = (int(np.searchsorted(THRESHOLDS, iou - 0.01)) for iou in (0.5, 0.75))
    means = {
        "ap": _mean(precision[:, 0]),
        "ap50": _mean(precision[:, 0, at_50]),
        "ap75": _mean(precision[:, 0, at_75]),
    }
    sizes = list(AREAS)[1:]
    return means | {
        f"ap_{size}": _mean(precision[:, area]) for area, size in enumerate(sizes, start=1)
    }


def _mean(precision: FloatArray) -> float | None:
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else None


def _class_metrics(
    table: PredictionTable,
    matches: Matches,
    annotations: Annotations,
    precision: FloatArray,
    threshold: float,
) -> list[ClassMetrics]:
    total = len(annotations.categories)
    boxes, images = annotations.class_counts(), _images_of_classes(annotations)
    shown = (table.scores > threshold) & ~matches.ignored
    positive = np.bincount(table.classes[shown], minlength=total)
    right = np.bincount(table.classes[shown & (matches.boxes >= 0)], minlength=total)
    metrics = []
    for index, name in enumerate(annotations.categories.names):
        counts = Counts(int(right[index]), int(positive[index] - right[index]), int(boxes[index]))
        is_measured = counts.boxes > 0
        metrics.append(
            ClassMetrics(
                name=name,
                images=int(images[index]),
                boxes=counts.boxes,
                ap=_mean(precision[index, 0]),
                ap50=_mean(precision[index, 0, 0]),
                precision=counts.precision if is_measured else None,
                recall=counts.recall if is_measured else None,
                f1=counts.f1 if is_measured else None,
            )
        )
    return metrics


def _images_of_classes(annotations: Annotations) -> npt.NDArray[np.int64]:
    """[K] images that have a box of the class that is no crowd."""
    pairs = np.stack([owners(annotations), annotations.classes], axis=1)[~annotations.crowds]
    classes = np.unique(pairs, axis=0)[:, 1]
    return np.bincount(classes, minlength=len(annotations.categories))


def _curves(precision: FloatArray, scores: ScoreCurves) -> Curves:
    by_class = precision[:, 0, 0].copy()
    by_class[by_class < 0] = np.nan
    has_boxes = ~np.isnan(by_class[:, 0])
    mean = by_class[has_boxes].mean(0) if has_boxes.any() else np.zeros(len(RECALLS))
    return Curves(RECALLS, mean, by_class, GRID, *scores.on_grid())
