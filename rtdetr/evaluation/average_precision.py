# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision, computed by faster-coco-eval."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Annotations
from ..errors import MissingExtraError
from .matching import coco_truth, owners
from .predictions import PredictionTable

__all__ = ["AREAS", "RECALLS", "THRESHOLDS", "precision_curves"]

AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Square pixels of the original image."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def precision_curves(
    table: PredictionTable, annotations: Annotations, max_detections: int
) -> npt.NDArray[np.float64]:
    """The precision [K, 4, 10, 101] by class, area, IoU and recall; -1 where there is no box to find.

    Args:
        table: the predictions.
        annotations: the boxes of K classes; crowds are regions to ignore.
        max_detections: of a class in an image; the best count.

    Raises:
        MissingExtraError: if faster-coco-eval is not installed.
    """
    total = len(annotations.categories)
    curves = np.full((total, len(AREAS), len(THRESHOLDS), len(RECALLS)), -1.0)
    # Of equal scores in two images the one in the image with the lower id comes first.
    ranks = np.argsort(np.argsort(annotations.image_ids, kind="stable"))
    truth = _Columns(ranks[owners(annotations)], coco_truth(annotations), annotations.classes)
    found = _Columns(ranks[table.images], table.coco_boxes(), table.classes)
    for index in np.flatnonzero(annotations.class_counts()).tolist():
        # One class at a time: the library keeps a dict for each box.
        boxes = truth.of_class(index, iscrowd=annotations.crowds.astype(int))
        predictions = found.of_class(index, score=table.scores.astype(np.float64))
        curves[index] = _curves_of_class(boxes, predictions, max_detections)
    return curves


class _Columns:
    """Boxes of all classes, from which those of a class are taken as COCO's dicts."""

    def __init__(
        self,
        images: npt.NDArray[np.int64],
        boxes: npt.NDArray[np.float64],
        classes: npt.NDArray[np.int64],
    ) -> None:
        self.images, self.boxes = images, boxes
        self._order = np.argsort(classes, kind="stable")
        self._classes = classes[self._order]

    def of_class(self, index: int, **column: npt.NDArray[Any]) -> list[dict[str, Any]]:
        start, end = np.searchsorted(self._classes, [index, index + 1])
        rows = self._order[start:end]
        ((name, values),) = column.items()
        boxes = self.boxes[rows]
        entries = zip(
            self.images[rows].tolist(),
            boxes.tolist(),
            boxes[:, 2:].prod(1).tolist(),
            values[rows].tolist(),
            strict=True,
        )
        return [
            # The library takes 0 for "no annotation".
            {"id": number, "image_id": image, "category_id": 0, "bbox": box, "area": area}
            | {"iscrowd": 0, name: value}
            for number, (image, box, area, value) in enumerate(entries, start=1)
        ]


def _curves_of_class(
    boxes: list[dict[str, Any]], predictions: list[dict[str, Any]], max_detections: int
) -> npt.NDArray[np.float64]:
    """[4, 10, 101]."""
    coco, evaluator_class = _library()
    images = sorted({entry["image_id"] for entry in (*boxes, *predictions)})
    common: dict[str, Any] = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": 0, "name": "0"}],
    }
    evaluator = evaluator_class(
        coco({**common, "annotations": boxes}),
        coco({**common, "annotations": predictions}),
        "bbox",
        print_function=_be_quiet,
    )
    evaluator.params.maxDets = [max_detections]
    evaluator.params.areaRng = [list(limits) for limits in AREAS.values()]
    evaluator.params.areaRngLbl = list(AREAS)
    evaluator.params.iouThrs, evaluator.params.recThrs = THRESHOLDS, RECALLS
    evaluator.evaluate()
    evaluator.accumulate()
    # By IoU, recall, class, area and limit.
    precision: npt.NDArray[np.float64] = evaluator.eval["precision"][:, :, 0, :, 0]
    return np.moveaxis(precision, 2, 0)


def _library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        extra = '"rtdetr-ops[train]"'
        raise MissingExtraError("Evaluation", "faster-coco-eval", extra) from error
    return COCO, COCOeval_faster


def _be_quiet(*_: object) -> None:
    """In place of the library's reports."""
