# SPDX-License-Identifier: Apache-2.0
"""Which prediction finds which box, by COCO's rules.

P predictions, T boxes, n pairs of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..boxes import intersection_and_union, xywh_to_xyxy
from ..data import Annotations
from .predictions import PredictionTable

__all__ = ["IOU", "Matches", "match_boxes", "match_rest"]

IOU = 0.5
"""From which on a prediction finds a box; AP looks at 0.5, 0.55 ... 0.95."""

PAIRS_AT_ONCE = 1 << 21
"""Of a prediction with a box; their arrays are the most memory that matching takes."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """What predictions found.

    Args:
        boxes: [P] the box that each prediction found, -1 for none.
        ignored: [P] True where a prediction is neither right nor wrong: it found a crowd.
    """

    boxes: IntArray
    ignored: BoolArray


@dataclass(frozen=True, eq=False)
class Pairs:
    """Predictions and boxes that overlap enough: their numbers and their IoU, [n] each."""

    predictions: IntArray
    boxes: IntArray
    ious: FloatArray

    def select(self, rows: BoolArray | IntArray) -> Pairs:
        return Pairs(self.predictions[rows], self.boxes[rows], self.ious[rows])


def match_boxes(table: PredictionTable, annotations: Annotations) -> Matches:
    """What each prediction finds among the boxes of its class.

    The best prediction chooses first, and takes the box that it covers best; a crowd may be found many times.

    Args:
        table: any order.
        annotations: the boxes.
    """
    total = len(annotations.categories)
    pairs = overlapping(
        table,
        table.images * total + table.classes,
        annotations,
        owners(annotations) * total + annotations.classes,
    )
    is_crowd = annotations.crowds[pairs.boxes]
    boxes = _take_in_turn(pairs.select(~is_crowd), table.scores, len(annotations.boxes))
    ignored = np.zeros(len(table), dtype=np.bool_)
    ignored[pairs.predictions[is_crowd]] = True
    return Matches(boxes, ignored & (boxes < 0))


def match_rest(table: PredictionTable, annotations: Annotations, free: BoolArray) -> IntArray:
    """[P] the box of any class that each prediction finds among the ``free`` ones [T], -1 for none."""
    keys = np.where(free, owners(annotations), -1)
    pairs = overlapping(table, table.images, annotations, keys)
    return _take_in_turn(pairs, table.scores, len(annotations.boxes))


def owners(annotations: Annotations) -> IntArray:
    """[T] the image of each box."""
    return np.repeat(np.arange(len(annotations)), annotations.counts())


def coco_truth(annotations: Annotations) -> FloatArray:
    """[T, 4] xywh in pixels."""
    boxes = annotations.boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def overlapping(
    table: PredictionTable, keys: IntArray, annotations: Annotations, box_keys: IntArray
) -> Pairs:
    """The pairs with equal keys [P] and [T] and an IoU of at least :data:`IOU`."""
    predicted = xywh_to_xyxy(table.coco_boxes())
    truth = xywh_to_xyxy(coco_truth(annotations))
    parts = []
    for predictions, boxes in _equal_keys(keys, box_keys):
        ious = _ious(predicted[predictions], truth[boxes], annotations.crowds[boxes])
        parts.append(Pairs(predictions, boxes, ious).select(ious >= IOU))
    none = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([none, *(part.predictions for part in parts)]),
        np.concatenate([none, *(part.boxes for part in parts)]),
        np.concatenate([none.astype(np.float64), *(part.ious for part in parts)]),
    )


def _equal_keys(keys: IntArray, box_keys: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs of equal keys, so many at a time as memory holds."""
    order = np.argsort(box_keys, kind="stable")
    starts = np.searchsorted(box_keys[order], keys, "left")
    counts = np.searchsorted(box_keys[order], keys, "right") - starts
    ends = np.cumsum(counts)
    first = 0
    while first < len(keys):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, "right")))
        part = slice(first, last)
        predictions = np.repeat(np.arange(first, last), counts[part])
        offsets = np.repeat(starts[part] - (ends[part] - counts[part] - before), counts[part])
        yield predictions, order[np.arange(len(predictions)) + offsets]
        first = last


def _ious(predicted: FloatArray, truth: FloatArray, crowds: BoolArray) -> FloatArray:
    """[n] of xyxy boxes [n, 4]; of a crowd, the share of the prediction that lies in it."""
    intersection, union = intersection_and_union(predicted, truth)
    area = (predicted[:, 2:] - predicted[:, :2]).prod(-1)
    whole = np.where(crowds, area, union)
    ious: FloatArray = np.divide(intersection, whole, out=np.zeros_like(whole), where=whole > 0)
    return ious


def _take_in_turn(pairs: Pairs, scores: npt.NDArray[np.float32], total: int) -> IntArray:
    """[P] what each prediction takes of ``total`` boxes, the best prediction first."""
    # As in COCO's code, the later box of equals.
    order = np.lexsort((-pairs.boxes, -pairs.ious, pairs.predictions, -scores[pairs.predictions]))
    matched = np.full(len(scores), -1, dtype=np.int64)
    taken = bytearray(total)
    has_box = bytearray(len(scores))
    for prediction, box in zip(
        pairs.predictions[order].tolist(), pairs.boxes[order].tolist(), strict=True
    ):
        if not has_box[prediction] and not taken[box]:
            has_box[prediction] = taken[box] = True
            matched[prediction] = box
    return matched
